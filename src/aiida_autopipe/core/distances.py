"""Shortest distances in a structure, periodic images included."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from aiida_autopipe.core.ace.neighbours import full_neighbour_list


class Pair(NamedTuple):
    """Two atoms (indices) and their distance in Å."""

    first: int
    second: int
    distance: float


def closest_pair(atoms: Atoms, within: float = 3.0) -> Pair | None:
    """The closest pair of atoms within a radius (Å), None when there is none.

    Raises:
        DataError: positions that are not finite or a periodic cell without volume.
    """
    neighbours = full_neighbour_list(atoms, within)
    if len(neighbours.centre) == 0:
        return None
    lengths = np.linalg.norm(neighbours.vectors, axis=1)
    k = int(np.argmin(lengths))
    return Pair(int(neighbours.centre[k]), int(neighbours.neighbour[k]), float(lengths[k]))


def overlaps(atoms: Atoms, fraction: float) -> bool:
    """True when two atoms are closer than `fraction` of the sum of their covalent radii."""
    radii = covalent_radii[atoms.numbers]
    neighbours = full_neighbour_list(atoms, 2 * fraction * float(radii.max()))
    lengths = np.linalg.norm(neighbours.vectors, axis=1)
    limits = fraction * (radii[neighbours.centre] + radii[neighbours.neighbour])
    return bool(np.any(lengths < limits))
