"""Options, progress and messages that the subcommands of `mlip-auto data` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aiida_autopipe.cli import options

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.formats.source import Source

Command = TypeVar("Command", bound=Callable[..., Any])

OUTPUT_FORMAT = click.option(
    "--output-format",
    type=click.Choice(["hdf5", "extxyz", "traj", "db", "json"]),
    help="Format of the result.  [default: by its ending]",
)


def reading(command: Command) -> Command:
    """Options that say how a file is to be read; the command gets them in one dictionary."""
    for option in (
        click.option(
            "--no-pbc", is_flag=True,
            help="The structures in --key are molecules, not periodic.",
        ),
        click.option("--cell", metavar="NAME", help="Dataset of the cells in --key."),
        click.option("--numbers", metavar="NAME", help="Dataset of the atomic numbers in --key."),
        click.option("--positions", metavar="NAME", help="Dataset of the positions in --key."),
        click.option(
            "--key", "groups", metavar="GROUP", multiple=True,
            help="Group of an HDF5 file of another program; may be given several times.",
        ),
        click.option(
            "--elements", metavar="A,B,...",
            help="Elements of the atom types 1, 2, ... of a LAMMPS dump.",
        ),
        click.option(
            "--format", "input_format",
            type=click.Choice(["hdf5", "extxyz", "traj", "db", "json", "lammps", "ase"]),
            help="Format of what is read.  [default: by its ending, else any that ASE knows]",
        ),
    ):  # fmt: skip
        command = option(command)
    return options.label_keys(command)


def open_source(path: Path, slice_text: str | None, every: int, given: dict[str, Any]) -> Source:
    """The file as a stream; ``given`` has what the options of `reading` gave."""
    from aiida_autopipe.core.formats.foreign import GroupNames
    from aiida_autopipe.core.formats.frames import frame_range
    from aiida_autopipe.core.formats.source import Source
    from aiida_autopipe.core.labels import LabelKeys

    names = None
    named = {name: given[name] for name in ("positions", "numbers", "cell")}
    if given["groups"] or any(named.values()) or given["no_pbc"]:
        pbc = False if given["no_pbc"] else None
        names = GroupNames(given["groups"] or ("/",), **named, pbc=pbc)
    elements = given["elements"]
    return Source(
        path,
        format=given["input_format"],
        wanted=frame_range(slice_text, every),
        keys=LabelKeys(given["energy_key"], given["forces_key"], given["stress_key"]),
        elements=None if elements is None else tuple(e.strip() for e in elements.split(",")),
        names=names,
    )


@contextmanager
def followed(source: Source, what: str) -> Iterator[Iterator[Dataset]]:
    """The blocks of a source, with a progress bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    terminal = sys.stderr.isatty()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[structures]} structures"),
        console=Console(stderr=True), disable=not terminal, transient=True,
    )  # fmt: skip
    with bar:
        total = source.total if terminal else None
        task = bar.add_task(f"{what} {source.path.name}", total=total, structures=0)

        def blocks() -> Iterator[Dataset]:
            count = 0
            for block in source.blocks():
                yield block.data
                count += len(block.data)
                bar.update(task, completed=block.progress, structures=count)

        yield blocks()


def say_written(path: Path, n_structures: int, sources: list[Source]) -> None:
    """One line about the result, and one about what it does not keep."""
    click.echo(f"{path}: {n_structures} structures")
    left_out = sorted({name for source in sources for name in source.left_out})
    if left_out:
        click.echo(f"Not kept: {', '.join(left_out)}", err=True)
