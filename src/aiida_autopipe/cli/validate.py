"""``mlip-auto validate``: a potential's properties next to those of a calculator, without AiiDA."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options

if TYPE_CHECKING:
    from aiida_autopipe.core.material import Material
    from aiida_autopipe.core.validate.values import Comparison


@click.command()
@click.argument("potential")
@click.option(
    "--material", "material_text", required=True, metavar="MATERIAL",
    help="An element, a formula or a structure file.",
)  # fmt: skip
@click.option(
    "--against", required=True, metavar="CALCULATOR",
    help="The reference: a potential file, a surrogate such as chgnet, or a calculator of ASE such "
    "as ase.calculators.emt.EMT.",
)  # fmt: skip
@click.option(
    "--property", "properties", multiple=True, metavar="NAME",
    help="What to compare; may be repeated.  [default: that of the goal elastic]",
)  # fmt: skip
@click.option(
    "--protocol", type=click.Choice(["fast", "balanced", "stringent"]), default="balanced",
    show_default=True, help="Sizes of cells and lengths of simulations.",
)  # fmt: skip
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE",
    help="A key of the section `validate`, in YAML; may be repeated.",
)  # fmt: skip
@click.option(
    "--trust", is_flag=True,
    help="Open MACE models. They are pickles, which can run any program their author put inside.",
)  # fmt: skip
@options.SEED
@options.JSON_OUTPUT
def validate(
    potential: str,
    material_text: str,
    against: str,
    properties: tuple[str, ...],
    protocol: str,
    assignments: tuple[str, ...],
    trust: bool,
    seed: int,
    json_path: Path | None,
) -> None:
    """Compare properties of POTENTIAL with those of another calculator, and say what passes.

    POTENTIAL is a file or, as CALCULATOR, anything that can explore. Both go through the same
    structures and the same analysis. With a DFT oracle the comparison is a part of `mlip-auto run`.
    The command succeeds when the table could be made, whatever the verdicts are.

    \b
    Examples:
        mlip-auto validate cu.yace --material Cu --against ase.calculators.emt.EMT
        mlip-auto validate cu.yace --material Cu --against ase.calculators.emt.EMT \\
            --property phonon_frequencies --property phase:bcc --set phonon_supercell=[4,4,4]
    """
    from aiida_autopipe.core.generate.calculators import forces_of, make_calculator
    from aiida_autopipe.core.validate.compare import compare, plots
    from aiida_autopipe.core.validate.properties import calculated_reference, potential_properties
    from aiida_autopipe.core.validate.settings import ValidationSettings

    options.check_json_path(json_path)
    section, material = _section(material_text, protocol, seed, properties, assignments)
    settings = ValidationSettings.from_mapping({**section, "seed": seed})
    names, primitive = section["properties"], material.primitive
    judged, oracle = (make_calculator(name, trust=trust) for name in (potential, against))
    for calculator in (judged, oracle):
        forces_of(primitive.copy(), calculator)  # a calculator that cannot do it says so now
    reference, volume = calculated_reference(oracle, primitive, names, settings)
    found = potential_properties(judged, primitive, names, settings, volume)
    rows = [_row(row) for row in compare(found, reference, float(section["tolerance"]))]
    if str(json_path) != "-":
        _print(rows)
    options.write_json(
        json_path,
        {
            "material": material.label,
            "reference": against,
            "tolerance": float(section["tolerance"]),
            "validation": rows,
            "plots": [plot.as_dict() for plot in plots(found, reference)],
        },
    )


def _section(
    material: str,
    protocol: str,
    seed: int,
    properties: tuple[str, ...],
    assignments: tuple[str, ...],
) -> tuple[dict[str, Any], Material]:
    """The section `validate` of an input with these keys, complete and checked, and the crystal."""
    from aiida_autopipe.cli.generate import assigned
    from aiida_autopipe.config.expand import expand_with_material

    given = assigned(assignments)
    if properties:
        given["properties"] = list(properties)
    user = {"material": material, "goal": "elastic", "protocol": protocol, "seed": seed}
    config, crystal = expand_with_material({**user, "validate": given}, Path(), "validate")
    return config.validation.model_dump(), crystal


def _row(row: Comparison) -> dict[str, Any]:
    """A row as `summary.json` has it."""
    found = row.as_dict()
    needed = (row.potential, row.relative_error if row.limit is None else row.limit)
    error = found["relative_error"]
    if row.rule == "difference" and error is not None and row.potential < row.reference:
        found["relative_error"] = -error
    return {**found, "checked": all(math.isfinite(value) for value in needed)}


def _print(rows: list[dict[str, Any]]) -> None:
    from aiida_autopipe.cli.results import validation_line

    for row in rows:
        click.echo(validation_line(row))
        if row["note"]:
            click.echo(f"  {'':26s} {row['note']}")
    passed = sum(row["passed"] for row in rows)
    click.echo(f"{passed} of {len(rows)} properties passed.")
