import numpy as np
import pytest

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.metrics import METRIC_KEYS, error_metrics


def test_energy_errors_are_per_atom() -> None:
    result = error_metrics([2, 4], energy=([0.0, 0.0], [0.2, -0.8]))
    assert result["energy_mae_per_atom"] == pytest.approx(0.15)
    assert result["energy_rmse_per_atom"] == pytest.approx(np.sqrt((0.1**2 + 0.2**2) / 2))


def test_forces_and_stress_are_averaged_over_components() -> None:
    forces = (np.zeros((2, 3)), np.array([[3.0, 0, 0], [0, 0, 3.0]]))
    result = error_metrics([2], forces=forces, stress=(np.zeros((1, 6)), np.full((1, 6), 0.01)))
    assert result["forces_mae"] == pytest.approx(1.0)
    assert result["forces_rmse"] == pytest.approx(np.sqrt(3.0))
    assert result["stress_mae"] == pytest.approx(0.01)


def test_masked_forces_do_not_count() -> None:
    forces = (np.zeros((2, 3)), np.array([[1.0, 1, 1], [9.0, 9, 9]]))
    assert error_metrics([2], forces=forces, force_mask=[1, 0])["forces_mae"] == pytest.approx(1.0)


def test_missing_labels_give_none_not_zero() -> None:
    assert error_metrics([]) == dict.fromkeys(METRIC_KEYS)
    empty = error_metrics([2], forces=(np.ones((2, 3)), np.zeros((2, 3))), force_mask=[0, 0])
    assert empty["forces_mae"] is None
    assert empty["forces_rmse"] is None


def test_shapes_must_match() -> None:
    with pytest.raises(DataError, match=r"forces reference has shape \(2, 3\)"):
        error_metrics([2], forces=(np.zeros((2, 3)), np.zeros((3, 3))))
    with pytest.raises(DataError, match="2 energies but 1 numbers"):
        error_metrics([2], energy=([0.0, 1.0], [0.0, 1.0]))
