"""Whether energies and forces are of one unit and sign.

Forces are the slopes of the energy. A potential of the forces alone therefore knows how much the
energies of the structures differ, and labels in another unit (Rydberg, Hartree, kcal/mol, kJ/mol)
or gradients in place of forces show at once. Fitted together they would only make a poor potential.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.cross_validation import fold_solutions
from aiida_autopipe.core.ace.equations import Equations, row_errors
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.tuning import start_choice
from aiida_autopipe.core.errors import DataError

Array = NDArray[np.float64]

# The nearest units that are mixed up differ by 13.6 (Rydberg); the correlation of energies with
# what forces say is 0.94 or more where they agree, and by chance large for a few structures.
_LARGEST_FACTOR, _CORRELATION, _FEWEST = 5.0, 0.9, 10
# Of held-out forces, relative to their size: those of crystals at rest are noise and say nothing.
_LARGEST_ERROR = 0.5


def check_units(equations: Equations, settings: FitSettings, composition: Array) -> None:
    """Raise DataError where energies change otherwise than forces say, and certainly so.

    Before anything is chosen by cross validation, which prefers a potential that does nothing when
    labels contradict each other.

    composition: (k, E) shares of the elements of the structures with kept energies, whose own
    energies forces know nothing about.
    """
    energies, forces = equations.kept.get("energy"), equations.kept.get("forces")
    n_structures, n_elements = composition.shape
    if energies is None or forces is None or equations.n_folds < 2:
        return
    if n_structures - n_elements < _FEWEST:
        return
    choice = start_choice(replace(settings, energy_weight=0.0, stress_weight=0.0))
    errors, weight = row_errors(forces, fold_solutions(equations, choice))
    root = np.sqrt(weight)
    if not np.linalg.norm(errors * root) < _LARGEST_ERROR * np.linalg.norm(forces.targets * root):
        return
    predicted = energies.matrix @ equations.solve(choice)
    expected, found = _apart_from(composition, np.column_stack([predicted, energies.targets])).T
    lengths = np.linalg.norm(expected) * np.linalg.norm(found)
    correlation = float(expected @ found / lengths) if lengths > 0 else 0.0
    if not abs(correlation) > _CORRELATION:
        return
    slope = float(expected @ found / (expected @ expected))
    if correlation < 0:
        raise DataError(
            f"The energies of {n_structures} structures fall where the forces say that they rise "
            f"(correlation {correlation:.2f}): give forces, not gradients."
        )
    if not 1.0 / _LARGEST_FACTOR < slope < _LARGEST_FACTOR:
        raise DataError(
            f"The energies of {n_structures} structures differ {slope:.3g} times as much as the "
            f"forces say (correlation {correlation:.2f}): one of them has another unit; energies "
            "must be in eV and forces in eV/Å."
        )


def _apart_from(composition: Array, columns: Array) -> Array:
    """What is left of columns (k, n) after the best energies of the elements are taken off."""
    return np.asarray(columns - composition @ np.linalg.lstsq(composition, columns, rcond=None)[0])
