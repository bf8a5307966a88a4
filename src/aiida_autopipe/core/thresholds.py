"""From an uncertainty and the true error of held-out forces: what the uncertainty is worth.

An extrapolation grade or a standard deviation says little by itself: at which value an MD run has
to stop depends on the potential. On structures the fit never saw, the expected error is estimated
as a monotone function of the uncertainty by isotonic regression (Barlow, Bartholomew, Bremner,
Brunk, Statistical Inference under Order Restrictions, 1972; as a calibration: Kuleshov, Fenner,
Ermon, ICML 2018), and a threshold is where that function reaches a multiple of the typical error.
Nothing is claimed far from what was tested: exchangeable data exceed the largest of n values with a
probability of 1 / (n + 1) only (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World,
2005), so what does is new, and is selected whatever the curve says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from aiida_autopipe.core.errors import DataError, InputError

Array = NDArray[np.float64]
Measure = Literal["gamma", "committee"]

AUTO = "auto"
SELECT_FACTOR, HALT_FACTOR = 3.0, 10.0
"""Expected errors, in medians of the held-out ones, that select a frame and halt a run."""
UNITS: dict[str, str] = {"gamma": "", "committee": "eV/Å"}
GAMMA_DEFAULTS = (1.5, 10.0)
"""Thresholds of the extrapolation grade where the data cannot say."""

FEWEST_FORCES, FEWEST_STRUCTURES = 50, 4
WEAKEST_CORRELATION = 0.3
REACH = 10.0
"""A run halts at this multiple of the largest uncertainty that was tested, if not before."""
_FEWEST_IN_BIN = 15
_NARROWEST_BIN = 1.5
_MEDIAN_NORM = 1.5382
"""Median of the norm of three normal numbers: the root of the median of chi-square."""


@dataclass(frozen=True)
class Curve:
    """The expected error by the uncertainty, from low to high; all of the same length.

    Attributes:
        uncertainty: geometric mean of each bin.
        error: mean error of the bin in eV/Å, as it was found.
        expected: the same made monotone, in eV/Å.
        count: forces in the bin.
    """

    uncertainty: list[float]
    error: list[float]
    expected: list[float]
    count: list[int]


@dataclass(frozen=True)
class Thresholds:
    """What an uncertainty says of the error of a force, and the thresholds that follow.

    Attributes:
        n_forces, n_structures: held-out data with a force that is not zero by symmetry.
        rank_correlation: Spearman's, between uncertainty and error; None without any data.
        typical_error: median of the norms of the force errors in eV/Å.
        select_error, halt_error: expected errors the thresholds stand for, in eV/Å.
        select, halt: the thresholds, in the unit of the uncertainty; None where there are none.
        tested_up_to: the largest uncertainty of the data.
        note: why there are none, or what limits them; '' when there is nothing to say.
        curve: the relation behind them.
    """

    n_forces: int
    n_structures: int
    rank_correlation: float | None
    typical_error: float | None
    select_error: float | None
    halt_error: float | None
    select: float | None
    halt: float | None
    tested_up_to: float | None
    note: str
    curve: Curve

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


def calibrate_thresholds(
    uncertainty: ArrayLike, error: ArrayLike, structure: ArrayLike, least: float = 0.0
) -> Thresholds:
    """Relate uncertainties to errors on held-out data and choose thresholds.

    Args:
        uncertainty: (n,) of atoms, 0 or more, in any unit.
        error: (n,) norm of the error of the force on the same atoms in eV/Å.
        structure: (n,) which structure an atom belongs to.
        least: no threshold is below; 1 for an extrapolation grade, which is interpolation below.

    Raises:
        DataError: arrays of different lengths, or numbers that are not finite or negative.
    """
    values, errors = np.asarray(uncertainty, dtype=np.float64), np.asarray(error, dtype=np.float64)
    owners = np.asarray(structure)
    if not values.shape == errors.shape == owners.shape or values.ndim != 1:
        raise DataError(
            f"Uncertainties, errors and structures have the shapes {values.shape}, {errors.shape} "
            f"and {owners.shape}; there must be one of each for every atom."
        )
    for name, numbers in (("uncertainty", values), ("error", errors)):
        if not np.isfinite(numbers).all() or (numbers < 0).any():
            raise DataError(f"An {name} is negative or not finite; check the labels.")
    known = values > 0
    values, errors, owners = values[known], errors[known], owners[known]
    n_structures = len(np.unique(owners))
    if not len(values):
        note = "There are no held-out forces to calibrate the uncertainty with."
        return _without(0, 0, None, None, None, note, _binned(values, errors))
    correlation = _rank_correlation(values, errors)
    typical, largest = float(np.median(errors)), float(values.max())
    curve = _binned(values, errors)
    given = (len(values), n_structures, correlation, typical, largest)
    if len(values) < FEWEST_FORCES or n_structures < FEWEST_STRUCTURES:
        return _without(
            *given,
            f"Only {len(values)} held-out forces of {n_structures} structures: at least "
            f"{FEWEST_FORCES} of {FEWEST_STRUCTURES} are needed to calibrate thresholds.",
            curve,
        )
    if correlation < WEAKEST_CORRELATION or typical == 0:
        return _without(
            *given,
            f"On {len(values)} held-out forces the uncertainty does not tell the error (rank "
            f"correlation {correlation:.2f}, at least {WEAKEST_CORRELATION:g} is needed).",
            curve,
        )
    return _with_thresholds(given, curve, least)


def _without(
    n_forces: int,
    n_structures: int,
    correlation: float | None,
    typical: float | None,
    largest: float | None,
    note: str,
    curve: Curve,
) -> Thresholds:
    return Thresholds(
        n_forces=n_forces,
        n_structures=n_structures,
        rank_correlation=correlation,
        typical_error=typical,
        select_error=None if typical is None else SELECT_FACTOR * typical,
        halt_error=None if typical is None else HALT_FACTOR * typical,
        select=None,
        halt=None,
        tested_up_to=largest,
        note=note,
        curve=curve,
    )


def _with_thresholds(
    given: tuple[int, int, float, float, float], curve: Curve, least: float
) -> Thresholds:
    typical, largest = given[3], given[4]
    found = [_crossing(curve, factor * typical) for factor in (SELECT_FACTOR, HALT_FACTOR)]
    select = max(min(found[0], largest), least)
    halt = max(min(found[1], REACH * largest), select)
    notes = []
    if found[0] > largest:
        notes.append(
            f"no held-out force was expected to be wrong by {SELECT_FACTOR * typical:.2g} eV/Å: "
            "what is more uncertain than all of them is selected"
        )
    if found[1] > largest:
        notes.append(
            f"the halt at an expected error of {HALT_FACTOR * typical:.2g} eV/Å is an "
            "extrapolation beyond the held-out data"
        )
    sentence = "; ".join(notes)
    return Thresholds(
        *given[:4],
        select_error=SELECT_FACTOR * typical,
        halt_error=HALT_FACTOR * typical,
        select=float(select),
        halt=float(halt),
        tested_up_to=largest,
        note=f"{sentence[0].upper()}{sentence[1:]}." if sentence else "",
        curve=curve,
    )


def _binned(values: Array, errors: Array) -> Curve:
    """Mean errors of bins of enough forces that are wide enough, made monotone.

    Bins are closed from the top, where few values cover a wide range.
    """
    order = np.argsort(-values, kind="stable")
    cuts, begin = [], 0
    for i in range(1, len(order)):
        wide = values[order[begin]] >= _NARROWEST_BIN * values[order[i]]
        if wide and i - begin >= _FEWEST_IN_BIN and len(order) - i >= _FEWEST_IN_BIN:
            cuts.append(i)
            begin = i
    bins = [part for part in np.split(order, cuts) if len(part)][::-1]
    mean = np.array([errors[part].mean() for part in bins])
    count = np.array([len(part) for part in bins])
    smooth = isotonic_regression(mean, weights=count).x if len(bins) else mean
    return Curve(
        uncertainty=[float(np.exp(np.log(values[part]).mean())) for part in bins],
        error=mean.tolist(),
        expected=np.asarray(smooth).tolist(),
        count=count.tolist(),
    )


def _crossing(curve: Curve, target: float) -> float:
    """The uncertainty at which the expected error reaches the target.

    Straight lines in the logarithms inside the curve. Beyond it in proportion: extrapolation grades
    and standard deviations of a linear model are both homogeneous of degree one in its rows, as is
    the error that a wrong coefficient makes.
    """
    expected = np.array(curve.expected)
    log_u = np.log(curve.uncertainty)
    # Bins that were pooled count as one point.
    levels, place = np.unique(expected, return_inverse=True)
    weights = np.array(curve.count, dtype=np.float64)
    centres = np.bincount(place, weights * log_u) / np.bincount(place, weights)
    centres, levels = centres[levels > 0], levels[levels > 0]
    if target > levels[-1]:
        return float(np.exp(centres[-1]) * target / levels[-1])
    return float(np.exp(np.interp(math.log(target), np.log(levels), centres)))


def _rank_correlation(first: Array, second: Array) -> float:
    """Spearman's coefficient; 0 where one of the two is constant."""
    a, b = rankdata(first), rankdata(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm else 0.0


def noise_thresholds(force_noise: float) -> tuple[float, float]:
    """Thresholds of a posterior standard deviation that is taken at its word, in eV/Å.

    With a noise s in each force component and a standard deviation u of the force vector, errors
    are normal with the variance s^2 + u^2 / 3 in each component, and the norm has a mean of sqrt(8
    / pi) and a median of 1.538 of its root. The thresholds are where the mean reaches the same
    multiples of the median without u as in `calibrate_thresholds`.

    Raises:
        InputError: a noise that is not above zero.
    """
    if not force_noise > 0:
        raise InputError(f"The noise of the forces must be above 0, not {force_noise!r} eV/Å.")
    ratio = _MEDIAN_NORM / math.sqrt(8.0 / math.pi)
    select, halt = (
        force_noise * math.sqrt(3.0 * ((ratio * factor) ** 2 - 1.0))
        for factor in (SELECT_FACTOR, HALT_FACTOR)
    )
    return select, halt


class Chosen(NamedTuple):
    """Thresholds for a run, and a sentence on where they come from."""

    select: float
    halt: float
    sentence: str


def choose_thresholds(
    select: float | str, halt: float | str, measure: Measure, calibration: Mapping[str, Any] | None
) -> Chosen:
    """Numbers for thresholds of which one or both are 'auto'.

    Args:
        select, halt: as in the configuration.
        measure: 'gamma' or 'committee'.
        calibration: what a training found, see `core.ace.calibration`; None when it found nothing.

    Raises:
        InputError: no calibration at all for a committee, whose numbers have no default.
    """
    known = (calibration or {}).get(measure) or {}
    unit = f" {UNITS[measure]}" if UNITS[measure] else ""
    if known.get("select") is not None and known.get("halt") is not None:
        low, high = float(known["select"]), float(known["halt"])
        origin = (
            f"calibrated on {known['n_forces']} held-out forces (rank correlation "
            f"{known['rank_correlation']:.2f}, median error {known['typical_error']:.2g} eV/Å)"
        )
        note = known["note"]
    else:
        note = known.get("note") or "The training has calibrated nothing."
        (low, high), origin = _defaults(measure, known)
    low = low if isinstance(select, str) else float(select)
    high = high if isinstance(halt, str) else float(halt)
    if high < low:
        # A number of the user stays; the automatic one gives way.
        low, high = (high, high) if isinstance(select, str) else (low, low)
    words = f"Thresholds {low:.4g} and {high:.4g}{unit} of {measure}: {origin}."
    return Chosen(low, high, f"{words} {note}".strip())


def _defaults(measure: Measure, known: Mapping[str, Any]) -> tuple[tuple[float, float], str]:
    if measure == "gamma":
        return GAMMA_DEFAULTS, "the defaults"
    if known.get("force_noise") is None:
        raise InputError(
            "gamma_select and gamma_halt cannot be 'auto' for a committee here, because the "
            "trainer has calibrated nothing; give numbers in eV/Å."
        )
    if known["typical_error"] and known["n_forces"] >= _FEWEST_IN_BIN:
        # A median is not led astray by a few forces of a fold that was not foreseen.
        noise = known["typical_error"] / _MEDIAN_NORM
        origin = f"not calibrated, from the median error of {known['n_forces']} held-out forces"
        return noise_thresholds(noise), origin
    return noise_thresholds(known["force_noise"]), "from the noise of the cross validation"
