"""What the two uncertainties of a linear ACE are worth on structures it was not fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.posterior import Posterior
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.thresholds import UNITS, calibrate_thresholds

Array = NDArray[np.float64]

_SYMMETRY = 1e-3
"""A spread below this part of the root mean square is symmetry: no coefficients change it."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Uncertainties and errors of the forces of held-out structures; all (n,).

    Attributes:
        gamma: extrapolation grade.
        committee: standard deviation of the force over the posterior, in eV/Å.
        error: norm of the error of the force, in eV/Å.
        structure: index of the structure in its data set.
    """

    gamma: Array
    committee: Array
    error: Array
    structure: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Flat arrays named held_out_gamma and so on, for a .npz file."""
        return {f"held_out_{name}": getattr(self, name) for name in self.__dataclass_fields__}


class _One(NamedTuple):
    gamma: Array
    committee: Array
    error: Array


def evaluate_held_out(
    test: Dataset, potential: ACEPotential, posterior: Posterior, threads: int = 1
) -> HeldOut:
    """Evaluate both uncertainties where the forces are known; masked atoms are left out.

    Raises:
        InputError: a potential without an active set.
    """
    found: list[_One] = []
    owners: list[NDArray[np.int64]] = []
    tasks = in_threads(
        lambda i: _of_structure(test, i, potential, posterior), range(len(test)), threads
    )
    for index, one in enumerate(tasks):
        found.append(one)
        owners.append(np.full(len(one.error), index, dtype=np.int64))
    empty = np.zeros(0)
    return HeldOut(
        gamma=np.concatenate([empty, *(one.gamma for one in found)]),
        committee=np.concatenate([empty, *(one.committee for one in found)]),
        error=np.concatenate([empty, *(one.error for one in found)]),
        structure=np.concatenate([empty, *owners]).astype(np.int64),
    )


def _of_structure(test: Dataset, index: int, potential: ACEPotential, posterior: Posterior) -> _One:
    if test.forces is None:
        return _One(np.zeros(0), np.zeros(0), np.zeros(0))
    rows = slice(int(test.offsets[index]), int(test.offsets[index + 1]))
    reference = np.asarray(test.forces[rows], dtype=np.float64)
    used = np.isfinite(reference).all(axis=1)
    mask = test.labels(index).force_mask
    if mask is not None:
        used &= mask > 0
    atoms = test.atoms(index)
    result = potential.evaluate(atoms, gamma=True)
    assert result.gamma is not None
    spread = posterior.force_std(potential.basis.design_block(atoms).force_rows)
    error = np.linalg.norm(result.forces - reference, axis=1)
    return _One(result.gamma[used], spread[used], error[used])


def calibration(data: HeldOut, posterior: Posterior) -> dict[str, dict[str, Any]]:
    """The fields of `core.thresholds.Thresholds` for 'gamma' and 'committee', with their units.

    Forces that are zero by symmetry, whatever the coefficients, test nothing and are left out.
    """
    typical = float(np.sqrt(np.mean(data.committee**2))) if len(data.committee) else 0.0
    free = data.committee > _SYMMETRY * typical
    found: dict[str, dict[str, Any]] = {}
    for measure, least in (("gamma", 1.0), ("committee", 0.0)):
        values = getattr(data, measure)[free]
        result = calibrate_thresholds(values, data.error[free], data.structure[free], least)
        found[measure] = {**result.to_dict(), "unit": UNITS[measure]}
    found["committee"]["force_noise"] = posterior.force_noise
    return found


def sentences(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What a reader should know of each uncertainty."""
    for measure, values in found.items():
        if values["select"] is None:
            yield f"{measure}: {values['note']}"
            continue
        unit = f" {values['unit']}" if values["unit"] else ""
        yield (
            f"{measure}: rank correlation with the error of {values['n_forces']} held-out forces "
            f"{values['rank_correlation']:.2f}; select above {values['select']:.3g}{unit}, halt "
            f"above {values['halt']:.3g}{unit}. {values['note']}".strip()
        )
