"""``mlip-auto check``: what an input file means, what it may cost, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

_PURPOSES = {
    "isolated_atoms": "isolated atoms",
    "training": "training structures, retries included",
    "equation_of_state": "equation of state",
    "elastic_constants": "elastic constants",
    "vacancy": "vacancy",
    "validation_retries": "retries of the validation",
}


@click.command()
@options.INPUT
@options.JSON_FLAG
@click.option(
    "--offline", is_flag=True, help="Do not look at AiiDA: codes and pseudopotentials unchecked."
)
def check(input_file: Path, as_json: bool, offline: bool) -> None:
    """Show the complete configuration of INPUT and the most DFT calculations it can start.

    Everything that can be checked without calculating is checked: keys and values, the material,
    codes and pseudopotentials. The output is itself an input file that gives the same run.

    \b
    Example:
        mlip-auto check silicon.yaml
    """
    from aiida_autopipe.config.estimate import initial_structures, max_dft_calculations
    from aiida_autopipe.config.expand import load_config
    from aiida_autopipe.config.loading import dump_config

    config, material = load_config(input_file)
    initial = initial_structures(config, material)
    counts = max_dft_calculations(config, material)
    if not offline:
        from aiida_autopipe.workflows.preflight import preflight

        problems = preflight(config, material)
        if problems:
            raise InputError("\n".join(problems))
    expanded = config.model_dump()
    if as_json:
        answer = {
            "config": expanded,
            "initial_structures": initial,
            "max_dft_calculations": counts,
            "checked_aiida": not offline,
        }
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(dump_config(expanded), nl=False)
    click.echo(f"\n# DFT calculations at most: {counts['total']}")
    for purpose, text in _PURPOSES.items():
        if counts[purpose]:
            click.echo(f"# {counts[purpose]:6d} {text}")
    click.echo(
        f"# The initial pool has {initial} structures; the crystal is {material.label}, "
        f"{material.spacegroup} ({material.crystal_system}, {len(material.primitive)} atoms in the "
        "primitive cell)."
    )
    if offline:
        click.echo("Not checked: codes and pseudopotentials (--offline).", err=True)
