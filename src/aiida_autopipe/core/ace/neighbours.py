"""Full neighbour lists: every ordered pair (i, j) closer than a cutoff, images included."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError

# A periodic cell flatter than this (volume over product of edges) has no usable neighbour list.
_SMALLEST_RELATIVE_VOLUME = 1e-6
# Å; a vector shorter than this is none.
_SHORTEST_VECTOR = 1e-3
# Å; beyond it distances of atoms get lost in the rounding of their positions.
_LARGEST_LENGTH = 1e9
# Images of a cell to look through for the neighbours of one atom.
_MOST_IMAGES = 1e7


class Neighbours(NamedTuple):
    """Pairs of a full list: centre (P,), neighbour (P,) and vectors (P, 3) in Å from i to j."""

    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    vectors: NDArray[np.float64]


def full_neighbour_list(atoms: Atoms, cutoff: float) -> Neighbours:
    """Return all ordered pairs of `atoms` with distance < `cutoff` (Å), with their vectors.

    Cells smaller than the cutoff, skewed cells, mixed periodicity and isolated atoms (no pair at
    all) are handled; an atom is its own neighbour through a periodic image.

    Raises DataError for no atoms, NaN or infinite positions, a periodic direction without a
    usable cell vector, or more neighbours of an atom than any matter has.
    """
    # Checking a geometry, which is all that some want of this module, needs no numba.
    from aiida_autopipe.core.ace.pair_kernels import MOST_NEIGHBOURS, find_pairs

    check_geometry(atoms)
    box = _box(atoms)
    points = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    periodic = np.asarray(atoms.pbc, dtype=bool)
    inverse = np.asarray(np.linalg.inv(box), dtype=np.float64)
    widths = 1.0 / np.linalg.norm(inverse[:, periodic], axis=0)
    if np.prod(2.0 * np.ceil(cutoff / widths) + 1.0) > _MOST_IMAGES:
        raise DataError(
            f"The periodic cell {atoms.cell[periodic].tolist()} is {widths.min():.2g} Å wide, too "
            f"narrow for a cutoff of {cutoff:g} Å; give it in Å."
        )
    *pairs, crowded = find_pairs(points, box, inverse, periodic, float(cutoff))
    if crowded >= 0:
        raise DataError(
            f"Atom {crowded} ({chemical_symbols[atoms.numbers[crowded]]}) has more than "
            f"{MOST_NEIGHBOURS} neighbours within {cutoff:g} Å; give positions and cell in Å."
        )
    return Neighbours(*pairs)


def check_geometry(atoms: Atoms) -> None:
    """Raise DataError when positions or cell of `atoms` cannot carry a neighbour list."""
    if len(atoms) == 0:
        raise DataError("The structure has no atoms; remove it from the data.")
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise DataError(
            f"Atom {index} ({chemical_symbols[atoms.numbers[index]]}) has the position "
            f"{atoms.positions[index].tolist()}; positions must be finite numbers."
        )
    cell = np.asarray(atoms.cell[:], dtype=np.float64)
    if not np.isfinite(cell).all():
        raise DataError(f"The cell {cell.tolist()} contains numbers that are not finite.")
    largest = max(np.abs(atoms.positions).max(), np.abs(cell).max())
    if largest > _LARGEST_LENGTH:
        raise DataError(
            f"The structure has a coordinate of {largest:g} Å; beyond {_LARGEST_LENGTH:g} Å "
            "distances are lost in rounding."
        )
    periodic = cell[np.asarray(atoms.pbc, dtype=bool)]
    if len(periodic) == 0:
        return
    lengths = np.linalg.norm(periodic, axis=1)
    spanned = np.sqrt(max(np.linalg.det(periodic @ periodic.T), 0.0))
    if lengths.min() < _SHORTEST_VECTOR or spanned < _SMALLEST_RELATIVE_VOLUME * lengths.prod():
        raise DataError(
            f"The periodic cell vectors {periodic.tolist()} span no volume; give a real cell or "
            "switch periodicity off."
        )


def _box(atoms: Atoms) -> NDArray[np.float64]:
    """Cell whose non-periodic vectors are replaced by unit normals, so that it is invertible."""
    return np.ascontiguousarray(atoms.cell.complete()[:] if atoms.pbc.any() else np.eye(3))
