"""Whether energies and forces are of one unit and sign.

Forces are the slopes of the energy. A potential of the forces alone therefore knows how much the
energies of similar structures differ, and labels in another unit (Rydberg, Hartree, kcal/mol,
kJ/mol) or gradients in place of forces show at once. Fitted together they would only make a poor
potential. How energies of unlike structures differ, of atoms and crystals or of slabs of different
thickness, forces do not say: only structures of as many atoms of each element are compared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from aiida_autopipe.core.ace.cross_validation import fold_solutions
from aiida_autopipe.core.ace.equations import Equations, row_errors
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.tuning import start_choice
from aiida_autopipe.core.errors import DataError

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# The nearest units that are mixed up differ by 13.6 (Rydberg); the rank correlation of energies
# with what forces say is 0.88 for 20 structures of silicon, and by chance large for a few.
_LARGEST_FACTOR, _CORRELATION, _FEWEST = 5.0, 0.8, 10
# Of held-out forces, relative to their size: those of crystals at rest are noise and say nothing.
_LARGEST_ERROR = 0.5


def check_units(equations: Equations, settings: FitSettings, families: Ints) -> None:
    """Raise DataError where energies change otherwise than forces say, and certainly so.

    Before anything is chosen by cross validation, which prefers a potential that does nothing when
    labels contradict each other. Ranks and medians do not follow single structures that forces know
    nothing about.

    families: (k,) equal numbers for structures with kept energies that can be compared.
    """
    energies, forces = equations.kept.get("energy"), equations.kept.get("forces")
    if energies is None or forces is None or equations.n_folds < 2:
        return
    known = np.bincount(families)[families] > 1
    n_compared = int(np.count_nonzero(known)) - len(np.unique(families[known]))
    if n_compared < _FEWEST:
        return
    choice = start_choice(replace(settings, energy_weight=0.0, stress_weight=0.0))
    errors, weight = row_errors(forces, fold_solutions(equations, choice))
    root = np.sqrt(weight)
    if not np.linalg.norm(errors * root) < _LARGEST_ERROR * np.linalg.norm(forces.targets * root):
        return
    predicted = energies.matrix @ equations.solve(choice)
    expected, found = (
        _within(families[known], values[known]) for values in (predicted, energies.targets)
    )
    if not np.ptp(expected) * np.ptp(found) > 0:
        return
    correlation = float(spearmanr(expected, found).statistic)
    if abs(correlation) < _CORRELATION:
        return
    if correlation < 0:
        raise DataError(
            f"The energies of {len(found)} structures fall where the forces say that they rise "
            f"(rank correlation {correlation:.2f}): give forces, not gradients."
        )
    slope = _slope(expected, found)
    if not 1.0 / _LARGEST_FACTOR < slope < _LARGEST_FACTOR:
        raise DataError(
            f"The energies of {len(found)} structures differ {slope:.3g} times as much as the "
            f"forces say (rank correlation {correlation:.2f}): one of them has another unit; "
            "energies must be in eV and forces in eV/Å."
        )


def _within(families: Ints, values: Array) -> Array:
    """(k,) differences from the median of the family."""
    differences = values.copy()
    for family in np.unique(families):
        differences[families == family] -= np.median(values[families == family])
    return differences


def _slope(x: Array, y: Array) -> float:
    """The s of the smallest sum of |y - s x|: the median of y / x with the weights |x|."""
    used = x != 0.0
    ratios, weights = y[used] / x[used], np.abs(x[used])
    order = np.argsort(ratios)
    half = np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())
    return float(ratios[order][half])
