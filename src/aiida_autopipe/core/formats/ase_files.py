"""ASE's own files, trajectories and databases, frame by frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import reserved_keys, str_represents
from ase.formula import Formula
from ase.io.jsonio import encode
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.formats.frames import Frame, FrameRange, unreadable

ROWS = 500
"""Rows of a database that are in memory at one time."""

SQLITE_MAGIC = b"SQLite format 3\0"
_KEY = re.compile(r"[_a-zA-Z][_0-9a-zA-Z]*$")


def open_trajectory(path: Path) -> TrajectoryReader:
    """A trajectory, which reads a frame when it is indexed.

    Raises:
        DataError: it is no trajectory.
    """
    try:
        return TrajectoryReader(str(path))
    except Exception as error:  # a damaged header raises anything
        raise DataError(f"'{path}' is not an ASE trajectory: {_said(error)}") from error


def read_trajectory(path: Path, wanted: FrameRange) -> Iterator[Frame]:
    """Frames of an ASE trajectory.

    Raises:
        DataError: with the file and the frame, if it cannot be read.
    """
    with open_trajectory(path) as trajectory:
        if len(trajectory) == 0:
            raise DataError(f"'{path}' contains no structures.")
        for index in wanted.indices(len(trajectory)):
            with unreadable(path, index):
                atoms = trajectory[index]
            yield Frame(index, atoms, index + 1)


def count_rows(path: Path) -> int:
    """Number of structures in an ASE database.

    Raises:
        DataError: it is no database.
    """
    with _database(path) as database:
        return int(database.count())


def read_database(path: Path, wanted: FrameRange) -> Iterator[Frame]:
    """Rows of an ASE database in the order of their ids; key-value pairs are in `info`.

    A ``.json`` database is one JSON document and is read as a whole.

    Raises:
        DataError: no database, or with the file and the row, a row that cannot be read.
    """
    index = -1
    for index, row in enumerate(_rows(path)):
        if wanted.past(index):
            break
        atoms = None
        if index in wanted:
            with unreadable(path, index):
                atoms = row.toatoms()
                atoms.info |= {**row.data.get("columns", {}), **row.key_value_pairs}
        yield Frame(index, atoms, index + 1)
    if index < 0:
        raise DataError(f"'{path}' contains no structures.")


def _rows(path: Path) -> Iterator[Any]:
    with _database(path) as database:
        if path.suffix == ".json":
            yield from database.select()
            return
        # One query would bring all rows into memory.
        last = 0
        while rows := list(database.select(f"id>{last}", limit=ROWS)):
            yield from rows
            last = rows[-1].id


@contextmanager
def _database(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        is_sqlite = file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    if (path.suffix == ".json") == is_sqlite:
        raise DataError(f"'{path}' is not an ASE database.")
    try:
        yield ase.db.connect(str(path), type="db" if is_sqlite else "json", use_lock_file=False)
    except DataError:
        raise
    except Exception as error:  # what a damaged database raises depends on where it is damaged
        raise DataError(f"'{path}' cannot be read as an ASE database: {_said(error)}") from error


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text.split()) > 1 else f"{type(error).__name__} {text}".strip()


# ---------------------------------------------------------------------- writing


def with_calculator(atoms: Atoms) -> tuple[Atoms, dict[str, Any]]:
    """The structure with its labels where ASE's formats keep them, and its columns."""
    info, arrays = dict(atoms.info), dict(atoms.arrays)
    results = {n: store.pop(n) for n, store in (("energy", info), ("stress", info),
                                                ("forces", arrays)) if n in store}  # fmt: skip
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
    if "force_mask" in arrays:
        plain.arrays["force_mask"] = arrays["force_mask"]
    if results:
        plain.calc = SinglePointCalculator(plain, **results)
    return plain, info


@contextmanager
def trajectory_writer(path: Path) -> Iterator[Callable[[Atoms], None]]:
    """A function that appends a structure to a new trajectory."""
    with TrajectoryWriter(str(path), "w") as trajectory:
        yield lambda atoms: trajectory.write(with_calculator(atoms)[0])


@contextmanager
def database_writer(path: Path) -> Iterator[Callable[[Atoms], None]]:
    """A function that appends a row to a new SQLite database, in one transaction."""
    with ase.db.connect(str(path), type="db", use_lock_file=False, append=False) as database:

        def write(atoms: Atoms) -> None:
            plain, columns = with_calculator(atoms)
            pairs = {name: v for name, v in columns.items() if _is_pair(name, v)}
            others = {name: v for name, v in columns.items() if name not in pairs and v != ""}
            database.write(plain, key_value_pairs=pairs, data={"columns": others} if others else {})

        yield write


@contextmanager
def json_writer(path: Path) -> Iterator[Callable[[Atoms], None]]:
    """A function that appends a row to a new JSON database, without rewriting those before."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("{")

        def write(atoms: Atoms) -> None:
            nonlocal count
            count += 1
            plain, columns = with_calculator(atoms)
            row: dict[str, Any] = {
                "unique_id": f"{count:032x}", "ctime": 0.0, "mtime": 0.0,
                "numbers": plain.numbers, "positions": plain.positions,
                "cell": plain.cell.array, "pbc": plain.pbc,
            }  # fmt: skip
            if plain.calc is not None:
                row |= {"calculator": "unknown", "calculator_parameters": {}, **plain.calc.results}
            row["key_value_pairs"] = {n: v for n, v in columns.items() if _is_pair(n, v)}
            others = {n: v for n, v in columns.items() if not _is_pair(n, v) and v != ""}
            if others:
                row["data"] = {"columns": others}
            body = ",\n ".join(f'"{name}": {encode(value)}' for name, value in row.items())
            file.write(f'"{count}": {{\n {body}}},\n')

        yield write
        file.write(f'"ids": {list(range(1, count + 1))},\n"nextid": {count + 1}}}\n')


def _is_pair(name: str, value: Any) -> bool:
    """True when ASE takes it as a key-value pair; it refuses some names and number-like texts."""
    if not _KEY.match(name) or name in reserved_keys or name in all_properties or value == "":
        return False
    try:
        Formula(name, strict=True)
    except ValueError:
        pass
    else:
        return False
    if isinstance(value, str):
        return not any(str_represents(value, kind) for kind in (bool, int, float))
    return bool(isinstance(value, int | bool) or np.isfinite(value))
