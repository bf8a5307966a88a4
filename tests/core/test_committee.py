"""Spread, calibration and decisions of a committee, against known statistics."""

import numpy as np
import pytest

from aiida_autopipe.core.committee import (
    calibrate,
    decide,
    energy_spread,
    force_spread,
    frame_uncertainty,
    rank,
)
from aiida_autopipe.core.errors import DataError, InputError


def members(n_members: int, n_atoms: int, truth_scale: float, seed: int = 0):
    """Members around a mean whose error is `truth_scale` times their spread."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(n_atoms, 3))
    sigma = rng.uniform(0.01, 0.2, size=(n_atoms, 1))
    noise = rng.normal(size=(n_members, n_atoms, 3)) * sigma
    noise -= noise.mean(axis=0)
    error = truth_scale * sigma * rng.normal(size=(n_atoms, 3))
    return reference + error + noise, reference


def test_the_spread_is_the_norm_of_the_standard_deviations() -> None:
    forces = np.zeros((2, 1, 3))
    forces[1, 0] = [0.3, 0.0, 0.4]
    assert force_spread(forces) == pytest.approx([0.5 / np.sqrt(2)])
    assert energy_spread([[1.0], [3.0]]) == pytest.approx([np.sqrt(2)])


def test_the_spread_does_not_depend_on_the_orientation() -> None:
    forces, _ = members(4, 20, 1.0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    np.testing.assert_allclose(force_spread(forces @ rotation), force_spread(forces), rtol=1e-12)


def test_a_structure_is_as_uncertain_as_its_worst_atom() -> None:
    assert frame_uncertainty([1.0, 3.0, 2.0, 0.5], [0, 2, 3, 4]).tolist() == [3.0, 2.0, 0.5]


@pytest.mark.parametrize("truth", [0.5, 1.0, 4.0])
def test_the_scale_is_found(truth: float) -> None:
    """With a known ratio of error and spread, and many members, both scales give it back."""
    found = calibrate(*members(50, 4000, truth))
    assert found.scale == pytest.approx(truth, rel=0.04)
    assert found.quantile_scale == pytest.approx(truth, rel=0.04)
    assert found.covered == pytest.approx(0.9926, abs=0.006)
    assert found.rank_correlation > 0.5
    assert found.n_forces == 4000


def test_unforeseen_errors_move_the_likelihood_but_not_the_median() -> None:
    forces, reference = members(50, 1000, 1.0)
    reference[:20] += 3.0
    found = calibrate(forces, reference)
    assert found.scale > 3 * found.quantile_scale
    assert found.quantile_scale == pytest.approx(1.0, rel=0.1)


def test_forces_that_symmetry_makes_zero_do_no_harm() -> None:
    forces, reference = members(5, 100, 1.0)
    expected = calibrate(forces, reference).scale
    forces[:, :10], reference[:10] = 0.0, 0.0
    assert calibrate(forces, reference).scale == pytest.approx(expected, rel=0.2)


def test_decisions() -> None:
    uncertainty = [0.01, 0.2, 5.0, np.nan, 0.1, 0.3]
    words = decide(uncertainty, 0.1, 1.0)
    assert words.tolist() == ["known", "label", "reject", "reject", "known", "label"]
    assert rank(uncertainty, words).tolist() == [5, 1]
    assert decide([7.0], 0.1).tolist() == ["label"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: force_spread(np.zeros((1, 2, 3))), InputError, "at least 2 members"),
        (lambda: force_spread(np.zeros((2, 3))), InputError, r"shape \(M, N, 3\)"),
        (lambda: force_spread(np.full((2, 1, 3), np.nan)), DataError, "not finite"),
        (lambda: energy_spread([[1.0]]), InputError, "M > 1"),
        (lambda: frame_uncertainty([1.0], [0, 2]), InputError, "do not fit 1 atoms"),
        (lambda: calibrate(np.zeros((2, 2, 3)), np.zeros((1, 3))), InputError, "same atoms"),
        (lambda: calibrate(np.zeros((2, 2, 3)), np.zeros((2, 3))), DataError, "different seeds"),
        (lambda: calibrate(np.zeros((2, 0, 3)), np.zeros((0, 3))), DataError, "no held-out"),
        (lambda: decide([1.0], 2.0, 1.0), InputError, "less than reject_above"),
    ],
)
def test_what_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
