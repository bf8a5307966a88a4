"""``mlip-auto check``: what an input file means, what it may cost, and what is missing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.config.estimate import Cost

_PURPOSES = {
    "isolated_atoms": "isolated atoms",
    "training": "training structures, retries included",
    "equation_of_state": "equation of state",
    "elastic_constants": "elastic constants",
    "vacancy": "vacancy and interstitial",
    "energy_volume_curve": "energy over a wide range of volumes",
    "phonons": "phonons",
    "phases": "other crystal structures",
    "surfaces": "surfaces",
    "dimers": "dimers",
    "validation_retries": "retries of the validation",
}


@click.command()
@options.INPUT
@options.JSON_FLAG
@click.option(
    "--offline", is_flag=True, help="Do not look at AiiDA: codes and pseudopotentials unchecked."
)
def check(input_file: Path, as_json: bool, offline: bool) -> None:
    """Show the complete configuration of INPUT, the DFT calculations it can start and their cost.

    Everything that can be checked without calculating is checked: keys and values, the material,
    codes and pseudopotentials. The output is itself an input file that gives the same run.

    \b
    Example:
        mlip-auto check silicon.yaml
    """
    from aiida_autopipe.config.estimate import initial_pool, label_cost, max_dft_calculations
    from aiida_autopipe.config.expand import load_config
    from aiida_autopipe.config.loading import dump_config
    from aiida_autopipe.config.models import PW_ORACLE
    from aiida_autopipe.config.timing import fit_timing

    config, material = load_config(input_file)
    pool = initial_pool(config, material)
    initial = len(pool)
    counts = max_dft_calculations(config, material)
    known: dict[str, Any] = {}
    model = fit_timing([])
    if not offline:
        from aiida_autopipe.workflows.preflight import preflight

        problems = preflight(config, material)
        if problems:
            raise InputError("\n".join(problems))
        if config.label.oracle == PW_ORACLE:
            from aiida_autopipe.workflows.past_labels import past_labels
            from aiida_autopipe.workflows.pseudopotentials import pseudo_facts

            model = fit_timing(past_labels())
            known = pseudo_facts(config, material.elements)
    cost = None
    if config.label.oracle == PW_ORACLE:
        cost = label_cost(config, material, pool, model, **known)
    expanded = config.model_dump()
    if as_json:
        answer = {
            "config": expanded,
            "initial_structures": initial,
            "max_dft_calculations": counts,
            "cost": None if cost is None else asdict(cost),
            "checked_aiida": not offline,
        }
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(dump_config(expanded), nl=False)
    click.echo(f"\n# DFT calculations at most: {counts['total']}")
    for purpose, text in _PURPOSES.items():
        if counts.get(purpose):
            click.echo(f"# {counts[purpose]:6d} {text}")
    click.echo(f"# {_cost_words(cost)}")
    click.echo(
        f"# The initial pool has {initial} structures; the material is {material.describe()}."
    )
    if offline:
        click.echo("Not checked: codes and pseudopotentials (--offline).", err=True)


def _cost_words(cost: Cost | None) -> str:
    """The cost preview in a sentence."""
    if cost is None:
        return "CPU hours are estimated for pw.x only, not for another oracle."
    low, high = cost.hours / cost.factor, cost.hours * cost.factor
    source = (
        f"learned from {cost.n_past} labels of past runs"
        if cost.n_past
        else "without past runs to learn from"
    )
    return (
        f"CPU hours for {cost.n_labels} labels: about {cost.hours:.2g} "
        f"({low:.2g} to {high:.2g}, {source})."
    )
