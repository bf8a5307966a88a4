"""The diffusion coefficient from a mean-square displacement, where it can be had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST_MSD = 1.0
"""Å²; atoms that stay below it vibrate about their places and do not diffuse."""
SMALLEST_TIME = 0.5
"""ps; what is shorter has not left the ballistic regime."""
SMALLEST_R2 = 0.95
"""Share of the variance that a straight line must explain."""
_SKIPPED = 1 / 3
"""The first part of the time, ballistic and then caged, is not fitted."""


@dataclass(frozen=True)
class Diffusion:
    """Slope of a mean-square displacement.

    Attributes:
        coefficient: D = slope / 6 in Å²/ps (1 Å²/ps = 1e-8 m²/s); None where `reason` says why.
        r2: share of the variance that the line explains; None where nothing was fitted.
        reason: why there is no coefficient, or ''.
    """

    coefficient: float | None
    r2: float | None
    reason: str = ""


def diffusion(time_ps: NDArray[np.float64], msd: NDArray[np.float64]) -> Diffusion:
    """Diffusion coefficient from the slope of the last two thirds of a mean-square displacement.

    Args:
        time_ps: (n,) rising times in ps.
        msd: (n,) in Å², of the positions at the first of the times.
    """
    known = np.isfinite(time_ps) & np.isfinite(msd)
    time_ps, msd = np.asarray(time_ps)[known], np.asarray(msd)[known]
    if len(msd) < 10 or time_ps[-1] - time_ps[0] < SMALLEST_TIME:
        return Diffusion(None, None, f"shorter than {SMALLEST_TIME:g} ps")
    late = time_ps >= time_ps[0] + _SKIPPED * (time_ps[-1] - time_ps[0])
    if msd[late].max() < SMALLEST_MSD:
        return Diffusion(None, None, f"below {SMALLEST_MSD:g} Å²: the atoms keep their places")
    slope, offset = np.polyfit(time_ps[late], msd[late], 1)
    rest = msd[late] - (slope * time_ps[late] + offset)
    spread = np.sum((msd[late] - msd[late].mean()) ** 2)
    r2 = 1.0 - float(np.sum(rest**2) / spread) if spread > 0 else 0.0
    if slope <= 0 or r2 < SMALLEST_R2:
        return Diffusion(None, r2, f"not linear (R² = {r2:.2f})")
    return Diffusion(float(slope) / 6.0, r2)
