"""Datasets written to a file in any format, block by block; it appears when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.dataset_writer import DatasetWriter
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.files import complete_file
from aiida_autopipe.core.formats.ase_files import (
    database_writer,
    json_writer,
    trajectory_writer,
)
from aiida_autopipe.core.formats.extxyz import extxyz_writer
from aiida_autopipe.core.formats.source import format_of

WRITABLE = ("hdf5", "extxyz", "traj", "db", "json")

Write = Callable[[Dataset], None]


def writable_format(path: Path, given: str | None = None) -> str:
    """Format in which a file is written.

    Raises:
        InputError: its ending tells none that is written.
    """
    found = given or format_of(path)
    if found not in WRITABLE or path.suffix.lower() in (".gz", ".bz2", ".xz"):
        raise InputError(
            f"cannot write '{path}': use one of the endings .h5, .hdf5, .extxyz, .xyz, .traj, .db, "
            ".json"
        )
    return found


@contextmanager
def open_sink(
    path: Path, given: str | None = None, attributes: Mapping[str, Any] | None = None
) -> Iterator[Write]:
    """A function that writes a block; the file appears, or is replaced, when the block ends well.

    Args:
        path: the file.
        given: one of `WRITABLE`; None goes by the ending.
        attributes: values about the whole set; only dataset files keep them.

    Raises:
        InputError: a format that is not written; blocks that do not go together.
        OSError: the file cannot be written; what stood there is unchanged.
    """
    kind = writable_format(path, given)
    with complete_file(path) as target:
        if target.is_file():  # left behind by a killed process
            target.unlink()
        if kind == "hdf5":
            with DatasetWriter(
                target, attributes=attributes, commit_seconds=None, promote=True
            ) as writer:
                yield writer.append
            return
        if kind == "extxyz":
            with extxyz_writer(target) as write_block:
                yield write_block
            return
        makers = {
            "traj": trajectory_writer, "db": database_writer, "json": json_writer,
        }  # fmt: skip
        with makers[kind](target) as write_atoms:

            def write(block: Dataset) -> None:
                for atoms in block.iter_atoms():
                    write_atoms(atoms)

            yield write
