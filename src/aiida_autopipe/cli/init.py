"""``mlip-auto init``: a commented input file."""

from __future__ import annotations

from pathlib import Path

import click

from aiida_autopipe.core.errors import InputError


@click.command()
@click.argument("name")
@click.option(
    "--material",
    default="Si",
    show_default=True,
    help="An element with a known crystal, or a structure file.",
)
def init(name: str, material: str) -> None:
    """Write a commented input file NAME.yaml.

    It holds every key with its meaning and its default; only the material has to be chosen.

    \b
    Example:
        mlip-auto init silicon --material Si
    """
    from aiida_autopipe.config.template import template
    from aiida_autopipe.core.material import read_material

    path = Path(name if Path(name).suffix in (".yaml", ".yml") else f"{name}.yaml")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist")
    read_material(material, path.resolve().parent)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template(path.name, material))
    except FileExistsError as error:
        raise InputError(f"{path} exists already; choose another name or remove it") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"Wrote {path}; look at it with `mlip-auto check {path}`.")
