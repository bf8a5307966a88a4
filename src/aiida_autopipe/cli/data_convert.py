"""``mlip-auto data convert`` and ``merge``: from files of structures to one of any format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.cli import options
from aiida_autopipe.cli.data_options import (
    OUTPUT_FORMAT,
    followed,
    open_source,
    reading,
    say_written,
)
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.labels import is_missing

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.formats.source import Source

Keep = Callable[["Dataset"], NDArray[np.bool_]]

FILTER = click.option(
    "--filter", "filters", metavar="CONDITION", multiple=True,
    help="Keep structures with NAME OPERATOR VALUE, such as 'max_force<20' or 'origin=md'. NAME is "
    "a column, n_atoms, n_<element>, energy, energy_per_atom, max_force, max_stress, volume or "
    "volume_per_atom. May be given several times.",
)  # fmt: skip


@click.command()
@click.argument("file", metavar="IN", type=options.FILE)
@click.argument("out", type=options.FILE)
@click.option("--slice", "slice_text", metavar="A:B:C", help="Frames A to B in steps of C, from 0.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Every n-th frame of these.")
@FILTER
@reading
@OUTPUT_FORMAT
def convert(
    file: Path,
    out: Path,
    slice_text: str | None,
    every: int,
    filters: tuple[str, ...],
    output_format: str | None,
    **given: Any,
) -> None:
    """Write the structures of IN to OUT, in the format of its ending.

    Energies, forces, stresses and columns go along; other formats than HDF5 keep neither the label
    method nor reference energies. In extxyz positions and forces have 8 decimals.

    \b
    Examples:
        mlip-auto data convert md.lammpstrj md.h5 --elements Si,O --slice 1000: --every 10
        mlip-auto data convert frames.h5 calm.extxyz --filter 'max_force<20' --filter 'n_Si>1'
        mlip-auto data convert run.h5 run.traj --key particles/all --numbers /atoms/Z
    """
    from aiida_autopipe.core.conditions import all_of

    source = open_source(file, slice_text, every, given)
    keep = all_of(filters) if filters else None
    count = _write([source], out, output_format, keep, "Converting")
    say_written(out, count, [source])


@click.command()
@click.argument("files", metavar="FILE...", type=options.FILE, nargs=-1, required=True)
@click.option("-o", "--output", "out", metavar="FILE", type=options.FILE, required=True)
@click.option("--no-duplicates", is_flag=True, help="Leave out what was there exactly before.")
@reading
@OUTPUT_FORMAT
def merge(
    files: tuple[Path, ...],
    out: Path,
    no_duplicates: bool,
    output_format: str | None,
    **given: Any,
) -> None:
    """Write the structures of all FILEs, one after the other.

    Sets whose labels come from different methods are refused. A label or column that only some
    files have is NaN, 0, False or empty for the others. Duplicates are structures whose positions,
    cell, elements and labels are the same to the last bit; finding them takes about 100 bytes of
    memory for each structure.

    \b
    Example:
        mlip-auto data merge a.h5 b.h5 c.extxyz -o all.h5 --no-duplicates
    """
    sources = [open_source(file, None, 1, given) for file in files]
    seen = _Seen()
    count = _write(sources, out, output_format, seen.new if no_duplicates else None, "Merging")
    say_written(out, count, sources)
    if no_duplicates:
        click.echo(f"Left out {seen.duplicates} duplicates")


def _write(
    sources: list[Source], out: Path, output_format: str | None, keep: Keep | None, what: str
) -> int:
    """Write the kept structures of all sources; how many these are."""
    from aiida_autopipe.core.formats.sink import open_sink, writable_format
    from aiida_autopipe.core.joining import MergedAttributes

    writable_format(out, output_format)
    options.check_place(out, "the result")
    count, merged = 0, MergedAttributes()
    with open_sink(out, output_format) as write:
        for source in sources:
            with followed(source, what) as blocks:
                for block in blocks:
                    merged.add(block)
                    kept = block if keep is None else block[keep(block)]
                    if len(kept):
                        write(kept)
                        count += len(kept)
        if count == 0:
            raise InputError(f"no structure passes the filter; '{out}' is not written")
    return count


class _Seen:
    """Digests of the structures so far."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self.duplicates = 0

    def new(self, block: Dataset) -> NDArray[np.bool_]:
        """True for each structure of a block that was not there before."""
        found = [self._is_new(block, index) for index in range(len(block))]
        return np.array(found, dtype=bool)

    def _is_new(self, block: Dataset, index: int) -> bool:
        rows = slice(block.offsets[index], block.offsets[index + 1])
        digest = hashlib.blake2b(digest_size=16)
        arrays: list[tuple[Any, Any]] = [
            (block.numbers, rows), (block.positions, rows), (block.forces, rows),
            (block.cell, index), (block.pbc, index), (block.energy, index), (block.stress, index),
        ]  # fmt: skip
        for values, place in arrays:
            # A label that is NaN altogether is missing, as one of a file without this label.
            part = None if values is None or is_missing(values[place]) else values[place]
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        key = digest.digest()
        if key in self._digests:
            self.duplicates += 1
            return False
        self._digests.add(key)
        return True
