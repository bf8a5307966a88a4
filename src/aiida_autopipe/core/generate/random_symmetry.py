"""Random structures with the operations of a random space group."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.spacegroup import Spacegroup
from numpy.typing import NDArray

SPECIAL = (0.0, 0.25, 0.5, 0.75, 1.0 / 3.0, 2.0 / 3.0)
"""Coordinates of most special positions."""
SETTINGS = 10
"""Sets of positions that are tried in a space group."""
ORBITS = 6
"""Orbits that are tried for the atoms of one element."""

Operations = tuple[NDArray[np.float64], NDArray[np.float64]]


def random_symmetric(
    numbers: NDArray[np.int64], volume: float, rng: np.random.Generator
) -> tuple[Atoms, int] | None:
    """Atoms on the sites of a random space group, or None when this draw does not fill the cell.

    Args:
        numbers: (n,) atomic numbers, all of which go into the conventional cell.
        volume: of the cell, Å^3.
        rng: source of randomness.

    Returns:
        The structure, its atoms sorted by element, and the number of the space group.
    """
    group = int(rng.integers(2, 231))
    operations = _operations(group)
    cell = _cell(group, volume, rng)
    elements, counts = np.unique(numbers, return_counts=True)
    for _ in range(SETTINGS):
        positions = [_fill(operations, int(count), rng) for count in counts]
        if any(p is None for p in positions):
            continue
        filled = [p for p in positions if p is not None]
        species = np.repeat(elements, counts)
        # Two orbits on one point are no structure.
        points = np.vstack(filled)
        if len(np.unique(points.round(4), axis=0)) < len(points):
            continue
        made = Atoms(numbers=species, scaled_positions=points, cell=cell, pbc=True)
        return made, group
    return None


@lru_cache(maxsize=230)
def _operations(number: int) -> Operations:
    """Rotations (g, 3, 3) and translations (g, 3) in fractional coordinates, centring included."""
    rotations, translations = Spacegroup(number).get_op()
    return np.asarray(rotations, dtype=np.float64), np.asarray(translations, dtype=np.float64)


def _fill(
    operations: Operations, count: int, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Fractional positions of `count` atoms on whole orbits, None when they do not fit."""
    rotations, translations = operations
    taken: list[NDArray[np.float64]] = []
    missing = count
    for _ in range(ORBITS):
        fixed = rng.random(3) < 0.5
        point = np.where(fixed, rng.choice(SPECIAL, size=3), rng.random(3))
        # Positions x,x,z and the like.
        if rng.random() < 0.4:
            point[1] = point[0]
        if rng.random() < 0.2:
            point[2] = point[0]
        images = np.mod(np.round(rotations @ point + translations, 6), 1.0)
        orbit = np.unique(images, axis=0)
        if len(orbit) <= missing:
            taken.append(orbit)
            missing -= len(orbit)
        if not missing:
            return np.vstack(taken)
    return None


def _cell(group: int, volume: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A conventional cell of the crystal system of a space group, by its standard setting."""
    a, b, c = rng.uniform(1.0, 2.0, size=3)
    alpha = beta = gamma = 90.0
    if group <= 2:
        alpha, beta, gamma = rng.uniform(70.0, 110.0, size=3)
    elif group <= 15:
        beta = float(rng.uniform(90.0, 120.0))
    elif 75 <= group <= 142:
        b = a
    elif 143 <= group <= 194:
        b, gamma = a, 120.0
    elif group >= 195:
        b = c = a
    cell = Atoms(cell=[a, b, c, alpha, beta, gamma]).cell.array
    scale = (volume / abs(np.linalg.det(cell))) ** (1.0 / 3.0)
    return np.asarray(cell * scale, dtype=np.float64)
