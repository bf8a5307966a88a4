"""Arguments and options that several commands share, defined once."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.files import complete_file

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_autopipe.core.dataset import Dataset

Command = TypeVar("Command", bound=Callable[..., Any])

# Paths are checked by the readers, whose messages say more than click's.
FILE = click.Path(path_type=Path)

INPUT = click.argument("input_file", metavar="INPUT", type=FILE)

JSON_OUTPUT = click.option(
    "--json",
    "json_path",
    type=FILE,
    metavar="FILE",
    help="Write the result as JSON to FILE ('-' for the standard output).",
)

JSON_FLAG = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, for programs."
)

SEED = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=42,
    show_default=True,
    help="Seed of random numbers.",
)


def label_keys(command: Command) -> Command:
    """``--energy-key``, ``--forces-key``, ``--stress-key``: names of the labels in the file."""
    for name, usual in (
        ("stress", "stress, REF_stress, virial"),
        ("forces", "forces, REF_forces"),
        ("energy", "energy, REF_energy"),
    ):
        command = click.option(
            f"--{name}-key",
            metavar="KEY",
            default=None,
            help=f"Where the file keeps the {name}.  [default: {usual}]",
        )(command)
    return command


def require_labels(
    dataset: Dataset, path: Path, keys: tuple[str | None, str | None, str | None]
) -> Dataset:
    """The dataset itself, when it has the labels that were asked for, or any if none were.

    :param keys: what the user gave as energy, forces and stress key.
    :raises DataError: no labels under these keys.
    """
    found = {"energy": dataset.energy, "forces": dataset.forces, "stress": dataset.stress}
    for name, key in zip(found, keys, strict=True):
        if key is not None and found[name] is None:
            raise DataError(f"'{path}' has no {name} under the key '{key}'")
    if dataset.energy is None and dataset.forces is None:
        raise DataError(
            f"'{path}' has no labels: no energies and no forces under the usual keys; name them "
            "with --energy-key and --forces-key"
        )
    return dataset


def check_json_path(path: Path | None) -> None:
    """Refuse a place that cannot be written before anything expensive starts."""
    if path is not None and str(path) != "-":
        check_place(path, "the JSON file")


def check_place(path: Path, what: str) -> None:
    """Refuse a file that cannot be written where it is wanted; ``what`` is how errors call it."""
    if path.is_dir():
        raise InputError(f"{what} '{path}' is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        return  # a pipe or a device
    if not path.parent.is_dir():
        raise InputError(f"the folder '{path.parent}' of {what} does not exist")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"the folder '{path.parent}' of {what} cannot be written ({error.strerror})"
        ) from error


def write_json(path: Path | None, content: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write to a file, or to the standard output for '-'; nothing where no path was given."""
    if path is None:
        return
    text = json.dumps(content, indent=1, allow_nan=False)
    if str(path) == "-":
        click.echo(text)
    else:
        with complete_file(path) as target:
            target.write_text(text + "\n", encoding="utf-8")


@contextmanager
def progress_of(logger_name: str, quiet: bool) -> Iterator[None]:
    """Show what a module logs while it works, one line after the other, on standard error."""
    logger, handler = logging.getLogger(logger_name), _EchoHandler()
    level = logger.level
    if not quiet:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _EchoHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def structure_at(path: Path, index: int) -> Atoms:
    """One structure of a file.

    :param index: counted from 0; negative numbers count from the end.
    :raises InputError: no such file, or no such structure in it.
    """
    from aiida_autopipe.core.structure_files import read_structures

    if not path.is_file():
        raise InputError(f"There is no file '{path}'.")
    structures = read_structures(path)
    if not -len(structures) <= index < len(structures):
        raise InputError(f"'{path}' has no structure {index}: it holds {len(structures)}.")
    return structures[index]
