"""The k-point mesh that belongs to a cell and a spacing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError


def mesh_from_spacing(
    cell: NDArray[np.float64], pbc: Sequence[bool] | NDArray[np.bool_], kspacing: float
) -> tuple[int, int, int]:
    """Smallest mesh whose points are at most `kspacing` apart; 1 along directions that do not
    repeat.

    Args:
        cell: (3, 3) lattice vectors in Å, as rows.
        pbc: (3,) which directions repeat.
        kspacing: in 1/Å, with reciprocal vectors that include 2 pi.

    Raises:
        InputError: a spacing that is not positive.
    """
    if not kspacing > 0:
        raise InputError(f"A k-point spacing must be positive, not {kspacing} 1/Å.")
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(cell, dtype=np.float64)).T
    # Rounding as AiiDA does it, so that 4.0000001 intervals stay 4.
    intervals = np.ceil(np.round(np.linalg.norm(reciprocal, axis=1) / kspacing, 5))
    k1, k2, k3 = (
        max(1, int(n)) if repeats else 1 for n, repeats in zip(intervals, pbc, strict=True)
    )
    return k1, k2, k3
