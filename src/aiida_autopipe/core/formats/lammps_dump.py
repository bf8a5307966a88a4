"""Text dumps of LAMMPS, frame by frame.

Columns and headers are those of the command ``dump custom`` (LAMMPS manual). Lengths are in Å and
forces in eV/Å, so the units of the simulation must be *metal*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.formats.frames import Frame, FrameRange, TextFile, open_text, unreadable

COORDINATES = (("xu", "yu", "zu"), ("x", "y", "z"), ("xsu", "ysu", "zsu"), ("xs", "ys", "zs"))


def read_lammps_dump(
    path: Path, wanted: FrameRange, elements: Sequence[str] | None = None
) -> Iterator[Frame]:
    """Frames of a dump; atoms are sorted by id, and 'timestep' is in `info`.

    Args:
        path: the file.
        wanted: frames to read.
        elements: chemical symbol of each atom type; not needed with a column 'element'.

    Raises:
        InputError: neither elements nor a column 'element', or an element nobody knows.
        DataError: with the file and the frame: truncated, garbled, or other units.
    """
    numbers = _known(elements)
    index = 0
    with open_text(path) as file:
        line = file.line()
        while line and not wanted.past(index):
            with unreadable(path, index):
                header, line = _read_header(file, line)
                atoms = _read_atoms(file, header, line, numbers, index in wanted)
            yield Frame(index, atoms, file.progress)
            index += 1
            line = file.line()
            while line and not line.strip():
                line = file.line()
    if index == 0:
        raise DataError(f"'{path}' contains no structures.")


def _known(elements: Sequence[str] | None) -> list[int] | None:
    if elements is None:
        return None
    wrong = [symbol for symbol in elements if not atomic_numbers.get(symbol)]
    if wrong:
        raise InputError(f"'{wrong[0]}' is no chemical symbol")
    return [atomic_numbers[symbol] for symbol in elements]


def _read_header(file: TextFile, line: str) -> tuple[dict[str, Any], str]:
    """Sections before the atoms, and the line that names the columns."""
    header: dict[str, Any] = {}
    while not line.startswith("ITEM: ATOMS"):
        if not line.startswith("ITEM: "):
            raise DataError(f"expected 'ITEM: ...', not '{line.strip()[:60]}'.")
        title = line[6:].strip()
        if title == "TIMESTEP":
            header["timestep"] = int(file.line())
        elif title == "NUMBER OF ATOMS":
            header["n_atoms"] = int(file.line())
        elif title.startswith("BOX BOUNDS"):
            words = title.split()[2:]
            rows = [[float(word) for word in file.line().split()] for _ in range(3)]
            header["box"] = (words, np.array(rows))
        elif title == "UNITS":
            units = file.line().strip()
            if units != "metal":
                raise DataError(f"its units are '{units}'; only 'metal' (Å, eV) is read.")
        else:
            file.line()
        line = file.line()
        if not line:
            raise DataError("the file ends in its header.")
    missing = [name for name in ("n_atoms", "box") if name not in header]
    if missing:
        raise DataError(f"the header lacks {' and '.join(missing)}.")
    return header, line


def _cell(words: list[str], bounds: NDArray[np.float64]) -> tuple[Any, Any, Any]:
    """Cell vectors, origin and periodic directions.

    Bounds of a triclinic box are those of the box around it (LAMMPS manual, Howto triclinic).
    """
    pbc = [word == "pp" for word in words[-3:]]
    if "abc" in words:  # general triclinic: one vector and a coordinate of the origin in each line
        return bounds[:, :3], bounds[:, 3], pbc
    low, high = bounds[:, 0], bounds[:, 1]
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
    low = low - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = high - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return cell, low, pbc


def _read_atoms(
    file: TextFile, header: dict[str, Any], line: str, numbers: list[int] | None, wanted: bool
) -> Atoms | None:
    n_atoms, names = header["n_atoms"], line.split()[2:]
    if n_atoms <= 0:
        raise DataError("it has no atoms.")
    if not wanted:
        if file.skip(n_atoms) < n_atoms:
            raise DataError(f"the file ends before its {n_atoms} atoms are complete.")
        return None
    rows = file.lines(n_atoms)
    if len(rows) < n_atoms:
        raise DataError(f"the file ends after {len(rows)} of its {n_atoms} atoms.")
    table = [row.split() for row in rows]
    wrong = [k for k, row in enumerate(table) if len(row) != len(names)]
    if wrong:
        raise DataError(f"line {wrong[0]} of its atoms does not have {len(names)} values.")
    columns = dict(zip(names, zip(*table, strict=True), strict=True))
    cell, origin, pbc = _cell(*header["box"])
    positions = _positions(columns, cell, origin)
    kinds = _numbers(columns, numbers)
    order = np.arange(n_atoms)
    if "id" in columns:
        order = np.argsort(np.array(columns["id"], dtype=np.int64), kind="stable")
    atoms = Atoms(kinds[order], positions[order], cell=cell, pbc=pbc)
    if {"fx", "fy", "fz"} <= columns.keys():
        forces = np.array([columns[name] for name in ("fx", "fy", "fz")], dtype=np.float64)
        atoms.arrays["forces"] = np.ascontiguousarray(forces.T[order])
    if "timestep" in header:
        atoms.info["timestep"] = header["timestep"]
    return atoms


def _positions(columns: dict[str, Any], cell: Any, origin: Any) -> NDArray[np.float64]:
    for names in COORDINATES:
        if set(names) <= columns.keys():
            values = np.array([columns[name] for name in names], dtype=np.float64).T
            return values if "s" not in names[0] else np.asarray(values @ cell + origin)
    raise DataError(f"it has no coordinates; its columns are {', '.join(columns)}.")


def _numbers(columns: dict[str, Any], numbers: list[int] | None) -> NDArray[np.int64]:
    if numbers is None and "element" in columns:
        found = [atomic_numbers.get(symbol, 0) for symbol in columns["element"]]
        if 0 in found:
            raise DataError(f"'{columns['element'][found.index(0)]}' is no chemical symbol.")
        return np.array(found)
    if "type" not in columns:
        raise DataError(f"it has no atom types; its columns are {', '.join(columns)}.")
    types = np.array(columns["type"], dtype=np.int64)
    if numbers is None:
        raise DataError(
            f"it has atom types but no elements; give those of types 1 to {types.max()}, such as "
            "--elements Si,O."
        )
    if not 1 <= types.min() <= types.max() <= len(numbers):
        raise DataError(f"it has atom type {types.max()}, but {len(numbers)} elements were given.")
    return np.array(numbers)[types - 1]
