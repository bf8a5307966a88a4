"""Errors of predictions against labels, under the key names every report and JSON file uses."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_autopipe.core.errors import DataError

METRIC_KEYS = (
    "energy_mae_per_atom",
    "energy_rmse_per_atom",
    "forces_mae",
    "forces_rmse",
    "stress_mae",
)

Pair = tuple[ArrayLike, ArrayLike]


def error_metrics(
    n_atoms: ArrayLike,
    energy: Pair | None = None,
    forces: Pair | None = None,
    stress: Pair | None = None,
    force_mask: ArrayLike | None = None,
) -> dict[str, float | None]:
    """Mean absolute and root mean square errors of energies, forces and stresses.

    ``n_atoms`` (n,) is the number of atoms of each structure that has an energy. Each pair is
    (reference, predicted): ``energy`` (n,) total energies in eV, ``forces`` (N, 3) in eV/Å and
    ``stress`` (m, 6) in eV/Å^3. ``force_mask`` (N,) is 1 for the forces that count and 0 for those
    of buffer atoms. Forces and stresses are averaged over components. A quantity without a single
    value gives None, so a missing label can never look like a perfect prediction.

    Raises DataError when a pair does not match in shape.
    """
    result: dict[str, float | None] = dict.fromkeys(METRIC_KEYS)
    if energy is not None:
        error = _difference("energy", energy)
        counts = np.asarray(n_atoms, dtype=np.float64).ravel()
        if counts.shape != error.shape:
            raise DataError(
                f"There are {error.size} energies but {counts.size} numbers of atoms; "
                "give one number of atoms per energy."
            )
        error = error / counts
        result["energy_mae_per_atom"] = _mae(error)
        result["energy_rmse_per_atom"] = _rmse(error)
    if forces is not None:
        error = _difference("forces", forces).reshape(-1, 3)
        if force_mask is not None:
            error = error[np.asarray(force_mask).astype(bool)]
        result["forces_mae"] = _mae(error)
        result["forces_rmse"] = _rmse(error)
    if stress is not None:
        result["stress_mae"] = _mae(_difference("stress", stress))
    return result


def _difference(name: str, pair: Pair) -> NDArray[np.float64]:
    """Predicted minus reference."""
    reference = np.asarray(pair[0], dtype=np.float64)
    predicted = np.asarray(pair[1], dtype=np.float64)
    if reference.shape != predicted.shape:
        raise DataError(
            f"The {name} reference has shape {reference.shape} but the prediction has "
            f"{predicted.shape}; both must be of the same structures."
        )
    return predicted - reference


def _mae(error: NDArray[np.float64]) -> float | None:
    return float(np.mean(np.abs(error))) if error.size else None


def _rmse(error: NDArray[np.float64]) -> float | None:
    return float(np.sqrt(np.mean(error**2))) if error.size else None
