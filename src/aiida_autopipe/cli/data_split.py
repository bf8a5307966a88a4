"""``mlip-auto data split``: one file of structures into several."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from aiida_autopipe.cli import options
from aiida_autopipe.cli.data_options import followed, open_source, reading
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.formats.source import Source

MAX_FILES = 200


@click.command()
@click.argument("file", type=options.FILE)
@click.option(
    "--fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Part of the structures, chosen at random, that goes to the second file of -o.",
)  # fmt: skip
@options.SEED
@click.option(
    "-o", "--output", "outputs", metavar="REST PART", nargs=2, type=options.FILE,
    help="The two files, for --fraction.",
)  # fmt: skip
@click.option("--by", "column", metavar="COLUMN", help="One file for each value of this column.")
@click.option(
    "--folder", type=options.FILE, help="Where the files of --by go.  [default: beside FILE]"
)
@reading
def split(
    file: Path,
    fraction: float | None,
    seed: int,
    outputs: tuple[Path, Path] | None,
    column: str | None,
    folder: Path | None,
    **given: Any,
) -> None:
    """Share the structures of FILE out among several files; their order is kept.

    With --fraction, the second file gets that part of the structures, rounded, and at least one;
    the same seed gives the same choice. With --by, the files are called after FILE and the value.

    \b
    Examples:
        mlip-auto data split all.h5 --fraction 0.1 --seed 7 -o train.h5 test.h5
        mlip-auto data split all.h5 --by origin --folder parts
    """
    if (fraction is None) == (column is None):
        raise click.UsageError("Give either --fraction or --by.")
    source = open_source(file, None, 1, given)
    if column is not None:
        if outputs is not None:
            raise click.UsageError("--by names its files itself; give --folder instead of -o.")
        _split_by(source, column, file.parent if folder is None else folder)
    elif fraction is not None:
        if outputs is None:
            raise click.UsageError("--fraction needs -o REST PART.")
        if folder is not None:
            raise click.UsageError("--folder goes with --by.")
        _split_at_random(source, fraction, seed, outputs)


def _split_at_random(
    source: Source, fraction: float, seed: int, outputs: tuple[Path, Path]
) -> None:
    from aiida_autopipe.core.formats.sink import open_sink, writable_format

    for path in outputs:
        writable_format(path)
        options.check_place(path, "the result")
    if outputs[0].resolve() == outputs[1].resolve():
        raise InputError(f"both results would be '{outputs[0]}'")
    total = source.count()
    if total < 2:
        raise InputError(f"'{source.path}' has {total} structure; splitting needs two or more")
    count = min(max(1, round(fraction * total)), total - 1)
    chosen = np.zeros(total, dtype=bool)
    chosen[np.random.default_rng(seed).choice(total, count, replace=False)] = True
    start = 0
    with (
        open_sink(outputs[0]) as write_rest,
        open_sink(outputs[1]) as write_part,
        followed(source, "Splitting") as blocks,
    ):
        for block in blocks:
            part = chosen[start : start + len(block)]
            start += len(block)
            for write, mask in ((write_rest, ~part), (write_part, part)):
                if np.any(mask):
                    write(block[mask])
    click.echo(f"{outputs[0]}: {total - count} structures")
    click.echo(f"{outputs[1]}: {count} structures")


def _split_by(source: Source, column: str, folder: Path) -> None:
    from aiida_autopipe.core.formats.sink import open_sink, writable_format

    suffix = source.path.suffix
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'")
    writable_format(folder / f"x{suffix}")
    written: dict[str, tuple[Path, Callable[[Dataset], None]]] = {}
    counts: dict[str, int] = {}
    with ExitStack() as stack, followed(source, "Splitting") as blocks:
        for block in blocks:
            for value, part in _parts(source, column, block):
                if value not in written:
                    path = folder / f"{source.path.stem}_{_in_name(value)}{suffix}"
                    _check_new(path, value, written)
                    written[value] = path, stack.enter_context(open_sink(path))
                written[value][1](part)
                counts[value] = counts.get(value, 0) + len(part)
    for value, (path, _write) in written.items():
        click.echo(f"{path}: {counts[value]} structures")


def _parts(source: Source, column: str, block: Dataset) -> list[tuple[str, Dataset]]:
    if column not in block.columns:
        known = ", ".join(sorted(block.columns)) or "none"
        raise InputError(f"'{source.path}' has no column '{column}'; it has: {known}")
    values = np.asarray(block.columns[column])
    if values.dtype.kind == "f":
        raise InputError(
            f"the column '{column}' holds real numbers; split by text, bool or integers, or use "
            "`data convert --filter`"
        )
    return [(str(value), block[values == value]) for value in np.unique(values)]


def _in_name(value: str) -> str:
    """The value as part of the name of a file."""
    return re.sub(r"[^\w.+-]", "_", value) or "none"


def _check_new(path: Path, value: str, written: dict[str, tuple[Path, Any]]) -> None:
    same = [other for other, (known, _write) in written.items() if known == path]
    if same:
        raise InputError(f"the values '{same[0]}' and '{value}' would go to the same file '{path}'")
    if len(written) >= MAX_FILES:
        raise InputError(f"the column has more than {MAX_FILES} values")
    options.check_place(path, "the result")
