"""Meshes of k-points from a spacing in reciprocal space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError


def mesh_from_spacing(
    cell: NDArray[np.float64], pbc: NDArray[np.bool_], kspacing: float
) -> tuple[int, int, int]:
    """Divisions n_i = max(1, ceil(|b_i| / kspacing)), and 1 along directions without periodicity.

    Args:
        cell: (3, 3) lattice vectors in rows, Å.
        pbc: (3,) periodic directions.
        kspacing: largest distance between neighbouring k-points in 1/Å, the factor 2 pi included.

    Raises:
        InputError: a spacing that is not positive.
    """
    if not kspacing > 0:
        raise InputError(f"The k-point spacing is {kspacing} 1/Å; it must be positive.")
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(cell, dtype=float)).T
    lengths = np.linalg.norm(reciprocal, axis=1)
    # A tiny slack keeps an exact ratio from being rounded up by the last bit.
    divisions = np.maximum(1, np.ceil(lengths / kspacing - 1e-8)).astype(int)
    n1, n2, n3 = np.where(np.asarray(pbc), divisions, 1).tolist()
    return int(n1), int(n2), int(n3)
