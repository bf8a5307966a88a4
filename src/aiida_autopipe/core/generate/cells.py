"""Supercells as repeats of the given cell, chosen by their width or given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

Repeat = tuple[int, int, int]


def widths(atoms: Atoms) -> NDArray[np.float64]:
    """Distances (3,) between opposite faces of the cell, Å."""
    normals = np.linalg.inv(atoms.cell.array)
    return np.asarray(1.0 / np.linalg.norm(normals, axis=0), dtype=np.float64)


def repeated(crystal: Atoms, repeat: Repeat | None, width: float) -> Atoms:
    """The crystal repeated as given, or until opposite faces are at least `width` Å apart.

    Only repeats of the given cell are made, so that k-point meshes of all supercells can sample
    the same points.

    Raises:
        InputError: not periodic in three directions, or a repeat below 1.
    """
    if not np.all(crystal.pbc):
        raise InputError(
            f"{crystal.get_chemical_formula()} is not periodic in three directions: this generator "
            "needs a crystal."
        )
    if repeat is None:
        a, b, c = np.maximum(1, np.ceil(width / widths(crystal) - 1e-6)).astype(int).tolist()
        repeat = (a, b, c)
    if min(repeat) < 1:
        raise InputError(f"repeat {list(repeat)} must be three numbers of at least 1.")
    supercell: Atoms = crystal.repeat(repeat)
    return supercell


def compact_repeats(crystal: Atoms, cells: Sequence[int], wanted: float) -> Repeat:
    """The repeat, of one of the numbers of cells, whose periodic images are farthest apart.

    Distances are taken relative to a cube of the same volume, less what the number of cells is
    away from the wanted one.
    """
    best: tuple[float, Repeat] = (-np.inf, (1, 1, 1))
    for n in cells:
        edge = (n * crystal.get_volume()) ** (1.0 / 3.0)
        for a in range(1, n + 1):
            for b in range(1, n // a + 1):
                if n % a or (n // a) % b:
                    continue
                repeat = (a, b, n // (a * b))
                if max(repeat) > 12:
                    continue
                reduced, _ = minkowski_reduce(crystal.cell.array * np.array(repeat)[:, None])
                apart = float(np.min(np.linalg.norm(reduced, axis=1))) / edge
                score = round(apart - abs(np.log(n / wanted)), 9)
                best = max(best, (score, repeat))
    return best[1]


def check_count(name: str, value: int, least: int = 0) -> None:
    """Raise InputError where a number of structures or atoms is below the least possible."""
    if value < least:
        raise InputError(f"{name} must be at least {least}, not {value}.")


def check_positive(name: str, value: float) -> None:
    """Raise InputError where a length, temperature or the like is not above zero."""
    if not value > 0:
        raise InputError(f"{name} must be above zero, not {value}.")
