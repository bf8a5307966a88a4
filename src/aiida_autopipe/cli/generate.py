"""``mlip-auto generate``: structures from a recipe or one generator, a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_autopipe.report.pool import OriginSummary

PICTURES = (".html", ".htm", ".png", ".svg", ".pdf")
STRUCTURES = (".xyz", ".extxyz")
INPUTS = (".yaml", ".yml")


@click.command()
@click.argument("input_", metavar="[INPUT]", required=False)
@click.option(
    "-o", "--output", type=options.FILE, metavar="FILE", default="pool.extxyz", show_default=True,
    help="Where the structures go, as extended XYZ.",
)  # fmt: skip
@click.option(
    "--generator", metavar="NAME",
    help="One generator instead of the recipe of an input file; see --list.",
)  # fmt: skip
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE",
    help="A setting of the generator, in YAML; may be repeated.",
)  # fmt: skip
@click.option(
    "--picture", type=options.FILE, metavar="FILE",
    help="Draw the structures: .png, .svg, .pdf, or a page that opens in a browser, .html.",
)  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Show the generators and their settings.")
@click.option(
    "--seed", type=click.IntRange(min=0),
    help="Seed of random numbers.  [default: that of the input file, or 42]",
)  # fmt: skip
@options.JSON_OUTPUT
def generate(
    input_: str | None,
    output: Path,
    generator: str | None,
    assignments: tuple[str, ...],
    picture: Path | None,
    listing: bool,
    seed: int | None,
    json_path: Path | None,
) -> None:
    """Make structures to train on, and show what came out.

    INPUT is an input file, whose `generate` section is made; or, with --generator, a structure file
    or anything that can be a `material`, such as an element. Structures that are the same are made
    once. Each carries its origin and parameters.

    \b
    Examples:
        mlip-auto generate silicon.yaml -o pool.extxyz --picture pool.png
        mlip-auto generate Al --generator sqs --set 'composition={Al: 0.75, Mg: 0.25}'
        mlip-auto generate CH3Cl --generator reaction_path --set entering=F --set leaving=Cl
        mlip-auto generate --list
    """
    if listing:
        _list(generator)
        return
    if input_ is None:
        raise click.UsageError("give INPUT: an input file, a structure file or a material.")
    _check_places(output, picture, json_path)
    if Path(input_).suffix.lower() in INPUTS:
        if generator is not None or assignments:
            raise InputError(
                f"'{input_}' has a recipe of its own; --generator and --set go with a structure."
            )
        structures = _from_recipe(Path(input_), seed)
    else:
        structures = _from_generator(input_, generator, assignments, 42 if seed is None else seed)
    _write(structures, output, picture, json_path)


def _check_places(output: Path, picture: Path | None, json_path: Path | None) -> None:
    """Refuse what cannot be written before anything is made."""
    if output.suffix.lower() not in STRUCTURES:
        raise InputError(
            f"--output '{output}' must end in {' or '.join(STRUCTURES)}; make other "
            "formats with `mlip-auto data convert`."
        )
    options.check_place(output, "--output")
    if picture is not None:
        if picture.suffix.lower() not in PICTURES:
            raise InputError(f"--picture '{picture}' must end in {', '.join(PICTURES)}.")
        options.check_place(picture, "--picture")
    options.check_json_path(json_path)


def _from_recipe(path: Path, seed: int | None) -> list[Atoms]:
    import numpy as np

    from aiida_autopipe.config.expand import load_config
    from aiida_autopipe.core.generate.recipe import generate_pool

    config, material = load_config(path)
    rng = np.random.default_rng(config.seed if seed is None else seed)
    pool = generate_pool(material.structures(), config.generate.model_dump(), rng)
    return list(pool.iter_atoms())


def _from_generator(
    text: str, name: str | None, assignments: tuple[str, ...], seed: int
) -> list[Atoms]:
    import numpy as np

    from aiida_autopipe.core.generate.registry import (
        call_generator,
        check_generator_settings,
        generator_names,
        generator_settings,
    )
    from aiida_autopipe.core.generate.unique import unique_structures

    if name is None:
        raise InputError(
            f"'{text}' is no input file (.yaml): name a --generator of "
            f"{', '.join(generator_names())}."
        )
    settings = assigned(assignments)
    check_generator_settings(name, settings)
    frames = _frames(text)
    if len(frames) > 1:
        if "path" not in generator_settings(name):
            raise InputError(
                f"'{text}' holds {len(frames)} structures; the generator '{name}' takes one."
            )
        settings["path"] = frames if len(frames) > 2 else frames[1:]
    made = call_generator(name, frames[0], np.random.default_rng(seed), settings)
    if not made:
        raise InputError(f"The generator '{name}' made no structures with these settings.")
    return unique_structures(made)


def assigned(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Settings as YAML has them: `n=3`, `atoms=[4, 8]`, `composition={Al: 1, Mg: 1}`."""
    import yaml

    settings = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set '{text}' must be KEY=VALUE, such as n=3.")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set '{text}': {value!r} is no YAML value.") from error
    return settings


def _frames(text: str) -> list[Atoms]:
    """The structures of a file, or of a material by its name."""
    from aiida_autopipe.core.material import read_material
    from aiida_autopipe.core.structure_files import read_structures

    path = Path(text)
    if path.is_file():
        return read_structures(path)
    material = read_material(text, Path.cwd())
    structures = material.structures()
    frames = [atoms for name, atoms in structures.items() if name.startswith("path_")]
    return frames or [next(iter(structures.values()))]


def _write(
    structures: list[Atoms], output: Path, picture: Path | None, json_path: Path | None
) -> None:
    from aiida_autopipe.core.structure_files import write_extxyz
    from aiida_autopipe.report.pool import draw_pool, summarise

    summaries = summarise(structures)
    write_extxyz(structures, output)
    if picture is not None:
        draw_pool(structures, picture)
    options.write_json(
        json_path,
        {"structures": len(structures), "origins": [one.as_dict() for one in summaries]},
    )
    if str(json_path) != "-":
        _show(summaries, len(structures), output, picture)


def _show(summaries: list[OriginSummary], total: int, output: Path, picture: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("origin", "structures", "atoms", "Å³ per atom", "shortest distance, Å"):
        table.add_column(heading, justify="left" if heading == "origin" else "right")
    for one in summaries:
        volumes = "-" if one.volume_per_atom is None else _span(*one.volume_per_atom, digits=2)
        shortest = "-" if one.shortest_distance is None else f"{one.shortest_distance:.2f}"
        table.add_row(one.origin, str(one.count), _span(*one.atoms, digits=0), volumes, shortest)
    # Into a file or a pipe the table keeps its width.
    console = Console(width=None if Console().is_terminal else 100)
    console.print(table)
    click.echo(f"{total} structures in {output}" + (f", drawn in {picture}" if picture else ""))


def _span(low: float, high: float, *, digits: int) -> str:
    first, last = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return first if first == last else f"{first} to {last}"


def _list(generator: str | None) -> None:
    """Names, what they do, and their settings with defaults."""
    from aiida_autopipe.core.generate.registry import (
        generator_names,
        generator_settings,
        generator_summary,
    )

    for name in generator_names() if generator is None else [generator]:
        click.echo(f"{name}: {generator_summary(name)}")
        for key, setting in generator_settings(name).items():
            default = "null" if setting.default is None else setting.default
            click.echo(f"    {key} = {default if default != '' else repr(default)}")
