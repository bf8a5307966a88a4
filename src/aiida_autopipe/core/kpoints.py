"""Meshes of k-points from a spacing in reciprocal space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError


def mesh_from_spacing(
    cell: NDArray[np.float64], pbc: Sequence[bool] | NDArray[np.bool_], kspacing: float
) -> tuple[int, int, int]:
    """Divisions n_i = max(1, ceil(|b_i| / kspacing)), and 1 along directions without periodicity.

    The ratio is rounded to five decimals first, as AiiDA does, so that 4.0000001 stays 4.

    Args:
        cell: (3, 3) lattice vectors in rows, Å; zero vectors are allowed where not periodic.
        pbc: (3,) periodic directions.
        kspacing: largest distance between neighbouring k-points in 1/Å, the factor 2 pi included.

    Raises:
        InputError: a spacing that is not positive, or periodic vectors without volume.
    """
    if not kspacing > 0:
        raise InputError(f"The k-point spacing is {kspacing} 1/Å; it must be positive.")
    completed = complete_cell(np.asarray(cell, dtype=float))
    periodic = np.asarray(pbc, dtype=bool)
    if np.any(~np.any(np.asarray(cell)[periodic], axis=1)) or not np.linalg.det(completed):
        raise InputError(f"The cell {np.asarray(cell).tolist()} has no volume to put k-points in.")
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(completed).T, axis=1)
    divisions = np.maximum(1, np.ceil(np.round(lengths / kspacing, 5))).astype(int)
    n1, n2, n3 = np.where(periodic, divisions, 1).tolist()
    return int(n1), int(n2), int(n3)
