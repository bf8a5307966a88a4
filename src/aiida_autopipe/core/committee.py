"""What a committee of potentials knows: the spread of its forces, calibrated, and what follows.

Several models are trained on the same data from different seeds. Where they agree the data decide;
where they differ the data do not (Seung, Opper, Sompolinsky, COLT 1992). The spread is too small as
an error, because all members share their data and form, and is scaled to errors on held-out data
(Musil, Willatt, Langovoy, Ceriotti, J. Chem. Theory Comput. 15, 906, 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from aiida_autopipe.core.errors import DataError, InputError

Array = NDArray[np.float64]

KNOWN, LABEL, REJECT = "known", "label", "reject"
_FLOOR = 1e-3
"""A spread below this part of the root mean square is symmetry, not knowledge."""


def force_spread(forces: ArrayLike) -> Array:
    """Standard deviation of the force on each atom over the committee, in eV/Å.

    The square root of the summed variances of the three components, with M - 1 in the denominator,
    so that it does not depend on the orientation.

    Args:
        forces: (M, N, 3) of M members.

    Returns:
        (N,)

    Raises:
        InputError: fewer than two members, or another shape.
        DataError: forces that are not finite.
    """
    values = np.asarray(forces, dtype=np.float64)
    if values.ndim != 3 or values.shape[2] != 3:
        raise InputError(f"Forces of a committee have the shape (M, N, 3), not {values.shape}.")
    if len(values) < 2:
        raise InputError(f"A committee needs at least 2 members, there is {len(values)}.")
    if not np.isfinite(values).all():
        raise DataError("A member of the committee gives forces that are not finite.")
    return np.asarray(np.sqrt(values.var(axis=0, ddof=1).sum(axis=1)))


def energy_spread(energies: ArrayLike) -> Array:
    """Standard deviation (n,) of energies (M, n) over the committee, in their unit.

    Raises:
        InputError: fewer than two members.
    """
    values = np.asarray(energies, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise InputError(f"Energies of a committee have the shape (M > 1, n), not {values.shape}.")
    return np.asarray(values.std(axis=0, ddof=1))


def frame_uncertainty(spread: ArrayLike, offsets: ArrayLike) -> Array:
    """The largest spread among the atoms of each structure.

    Args:
        spread: (N,) of all atoms.
        offsets: (n+1,) the atoms of structure i are offsets[i] to offsets[i+1].

    Returns:
        (n,)

    Raises:
        InputError: offsets that do not belong to the atoms, or a structure without atoms.
    """
    values, bounds = np.asarray(spread, dtype=np.float64), np.asarray(offsets, dtype=np.int64)
    if bounds[0] != 0 or bounds[-1] != len(values) or (np.diff(bounds) < 1).any():
        raise InputError(f"The offsets {bounds.tolist()[:5]}... do not fit {len(values)} atoms.")
    return np.asarray(np.maximum.reduceat(values, bounds[:-1]))


@dataclass(frozen=True)
class Calibration:
    """How spreads become errors.

    Attributes:
        scale: factor on a spread that makes the errors most likely.
        quantile_scale: factor that makes the median of error over spread that of a normal
            distribution; much smaller than `scale` where a few errors were not foreseen.
        n_forces: held-out forces it was found with.
        rms_error: root mean square of the errors, norm of the vector, in eV/Å.
        rms_spread: the same of the spreads before scaling.
        rank_correlation: Spearman's, between spread and error; near 0 the spread says nothing.
        covered: part of the errors within two calibrated spreads (0.993 if they were normal).
    """

    scale: float
    quantile_scale: float
    n_forces: int
    rms_error: float
    rms_spread: float
    rank_correlation: float
    covered: float

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


def calibrate(forces: ArrayLike, reference: ArrayLike) -> Calibration:
    """The scale that turns spreads into errors of the mean of a committee, from held-out data.

    With an isotropic normal error of variance s^2 sigma_i^2 / 3 in each component, the likelihood
    of error vectors e_i is largest at s^2 = mean(|e_i|^2 / sigma_i^2). The quantile scale is
    median(|e_i| / sigma_i) / sqrt(chi2_3^-1(1/2) / 3). Spreads are at least 0.001 of their root
    mean square: symmetry makes some forces equal in all members.

    Args:
        forces: (M, N, 3) of the members, on data none of them was trained on, in eV/Å.
        reference: (N, 3) the labels.

    Raises:
        InputError: as `force_spread`, or labels of another shape.
        DataError: no forces, or members that all agree, as with one seed.
    """
    values = np.asarray(forces, dtype=np.float64)
    spread = force_spread(values)
    labels = np.asarray(reference, dtype=np.float64)
    if labels.shape != values.shape[1:]:
        raise InputError(
            f"The labels have the shape {labels.shape}, the forces of a member "
            f"{values.shape[1:]}; both must be of the same atoms."
        )
    if not len(spread):
        raise DataError("There are no held-out forces to calibrate the committee with.")
    rms_spread = float(np.sqrt(np.mean(spread**2)))
    if rms_spread == 0:
        raise DataError("All members of the committee are equal; train them from different seeds.")
    error = np.linalg.norm(values.mean(axis=0) - labels, axis=1)
    ratio = error / np.maximum(spread, _FLOOR * rms_spread)
    scale = float(np.sqrt(np.mean(ratio**2)))
    return Calibration(
        scale=scale,
        quantile_scale=float(np.median(ratio) / np.sqrt(chi2.ppf(0.5, 3) / 3)),
        n_forces=len(spread),
        rms_error=float(np.sqrt(np.mean(error**2))),
        rms_spread=rms_spread,
        rank_correlation=_rank_correlation(spread, error),
        covered=float(np.mean(ratio <= 2 * scale)),
    )


def _rank_correlation(first: Array, second: Array) -> float:
    """Spearman's coefficient; 0 where one of them does not vary."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (first, second)]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def decide(
    uncertainty: ArrayLike, known_below: float, reject_above: float = np.inf
) -> NDArray[np.str_]:
    """Which structures need a label.

    Args:
        uncertainty: (n,) largest calibrated spread of each, in eV/Å.
        known_below: up to this the committee is good enough by itself: 'known'.
        reject_above: above this a structure is so far from the data that it is likely unphysical:
            'reject'. What is between is worth a label: 'label'.

    Returns:
        (n,) of the three words.

    Raises:
        InputError: thresholds that are not ordered.
    """
    if not 0 <= known_below < reject_above:
        raise InputError(
            f"known_below ({known_below:g}) must not be negative and less than reject_above "
            f"({reject_above:g})."
        )
    values = np.asarray(uncertainty, dtype=np.float64)
    # What is not a number is no knowledge: it compares as false, and is rejected.
    words = np.where(values <= known_below, KNOWN, np.where(values <= reject_above, LABEL, REJECT))
    return np.asarray(words, dtype=np.str_)


def rank(uncertainty: ArrayLike, decisions: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
    """Indices of the structures that need a label, the most uncertain first."""
    chosen = np.flatnonzero(np.asarray(decisions) == LABEL)
    values = np.asarray(uncertainty, dtype=np.float64)[chosen]
    return np.asarray(chosen[np.argsort(-values, kind="stable")], dtype=np.int64)
