"""Full neighbour lists: every ordered pair (i, j) closer than a cutoff, images included."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from vesin import NeighborList

from aiida_autopipe.core.errors import DataError

# A periodic cell flatter than this (volume over product of edges) has no usable neighbour list.
_SMALLEST_RELATIVE_VOLUME = 1e-6


class Neighbours(NamedTuple):
    """Pairs of a full list: centre (P,), neighbour (P,) and vectors (P, 3) in Å from i to j."""

    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    vectors: NDArray[np.float64]


def full_neighbour_list(atoms: Atoms, cutoff: float) -> Neighbours:
    """Return all ordered pairs of `atoms` with distance < `cutoff` (Å), with their vectors.

    Cells smaller than the cutoff, skewed cells, mixed periodicity and isolated atoms (no pair at
    all) are handled; an atom is its own neighbour through a periodic image.

    Raises DataError for no atoms, NaN or infinite positions, or a periodic direction without a
    usable cell vector.
    """
    check_geometry(atoms)
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    centre, neighbour, vectors = search.compute(
        points=np.ascontiguousarray(atoms.positions, dtype=np.float64),
        box=_box(atoms),
        periodic=np.asarray(atoms.pbc, dtype=bool),
        quantities="ijD",
        copy=True,
    )
    return Neighbours(
        np.asarray(centre).astype(np.int64),
        np.asarray(neighbour).astype(np.int64),
        np.asarray(vectors, dtype=np.float64).reshape(-1, 3),
    )


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
    periodic = cell[np.asarray(atoms.pbc, dtype=bool)]
    if len(periodic) == 0:
        return
    lengths = np.linalg.norm(periodic, axis=1)
    spanned = np.sqrt(max(np.linalg.det(periodic @ periodic.T), 0.0))
    if lengths.min() == 0.0 or spanned < _SMALLEST_RELATIVE_VOLUME * lengths.prod():
        raise DataError(
            f"The periodic cell vectors {periodic.tolist()} span no volume; give a real cell or "
            "switch periodicity off."
        )


def _box(atoms: Atoms) -> NDArray[np.float64]:
    """Cell whose non-periodic vectors are replaced by unit normals, so that it is invertible."""
    return np.ascontiguousarray(atoms.cell.complete()[:] if atoms.pbc.any() else np.eye(3))
