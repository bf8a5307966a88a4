"""The uncertainties of a real fit against its true errors, inside and outside of its data."""

from dataclasses import replace

import numpy as np
import pytest

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.ace.calibration import calibration, evaluate_held_out, sentences
from aiida_autopipe.core.ace.fit import FitResult
from aiida_autopipe.core.ace.spread import SpreadPotential
from aiida_autopipe.core.committee import force_spread
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from tests.reference.copper import copper, copper_fit, labelled_copper


@pytest.fixture(scope="module")
def unseen() -> Dataset:
    return labelled_copper(20, np.random.default_rng(21))


@pytest.fixture(scope="module")
def hot() -> Dataset:
    """Rattled by up to twice what the fit has seen."""
    return labelled_copper(20, np.random.default_rng(22), more=0.1)


@pytest.fixture(scope="module")
def fitted(unseen: Dataset) -> FitResult:
    return copper_fit(test=unseen)


@pytest.mark.parametrize("measure", ["gamma", "committee"])
def test_the_relation_holds_on_hot_structures(
    fitted: FitResult, hot: Dataset, measure: str
) -> None:
    """Thresholds of the test set tell apart what is learned and what is not, far outside of it."""
    assert fitted.calibration is not None
    found = fitted.calibration[measure]
    assert found["rank_correlation"] > 0.5
    outside = evaluate_held_out(hot, fitted.potential, fitted.posterior)
    values = getattr(outside, measure)
    assert outside.error[values > found["halt"]].mean() > found["halt_error"]
    known, beyond = values <= found["select"], values > found["halt"]
    # Few are known among the hot ones, so that their mean is not certain.
    assert outside.error[known].mean() < 1.25 * found["select_error"]
    between = outside.error[~known & ~beyond].mean()
    assert found["select_error"] < between < found["halt_error"]
    # The structures the fit was made for are let through, these are not.
    assert known.mean() < 0.1 and beyond.mean() > 0.3
    inside = getattr(fitted.held_out, measure)
    assert (inside <= found["select"]).mean() > 0.7


def test_the_spread_is_the_size_of_the_error(fitted: FitResult, hot: Dataset) -> None:
    """Standard deviations predict errors outside the data within a factor of three."""
    outside = evaluate_held_out(hot, fitted.potential, fitted.posterior)
    assert 1 / 3 < np.median(outside.error / outside.committee) < 3


def test_it_is_in_the_summary_and_the_arrays(fitted: FitResult, unseen: Dataset) -> None:
    arrays = fitted.parity_arrays()
    assert arrays["held_out_gamma"].shape == (unseen.n_atoms,)
    error = arrays["test_forces_predicted"] - arrays["test_forces_reference"]
    np.testing.assert_allclose(arrays["held_out_error"], np.linalg.norm(error, axis=1))
    lines = list(sentences(fitted.calibration or {}))
    assert lines[0].startswith("gamma: rank correlation")
    assert "eV/Å" in lines[1]


def test_without_a_test_set_there_is_no_calibration() -> None:
    result = copper_fit(4)
    assert result.calibration is None
    assert "held_out_gamma" not in result.parity_arrays()


def test_masked_and_symmetric_forces_test_nothing(fitted: FitResult, unseen: Dataset) -> None:
    masked = replace(unseen, force_mask=(np.arange(unseen.n_atoms) % 2).astype(np.int8))
    data = evaluate_held_out(masked, fitted.potential, fitted.posterior)
    assert len(data.error) == unseen.n_atoms // 2
    perfect = copper(0.0, np.random.default_rng(0))
    both = Dataset.from_atoms([*unseen.iter_atoms(), perfect])
    forces = np.concatenate([unseen.forces, np.zeros((len(perfect), 3))])
    data = evaluate_held_out(
        replace(both, forces=forces), fitted.potential, fitted.posterior, threads=2
    )
    assert len(data.error) == unseen.n_atoms + len(perfect)
    assert calibration(data, fitted.posterior)["gamma"]["n_forces"] == unseen.n_atoms


def test_spread_of_a_committee_of_samples(fitted: FitResult) -> None:
    atoms = copper(0.2, np.random.default_rng(5))
    members = fitted.committee(2000, np.random.default_rng(6))[:2000]
    sampled = force_spread([member.evaluate(atoms).forces for member in members])
    calculator = ACECalculator(fitted.potential, posterior=fitted.posterior)
    calculator.calculate(atoms)
    np.testing.assert_allclose(calculator.results["force_std"], sampled, rtol=0.08)
    uncertainty = fitted.posterior.uncertainty(fitted.potential.basis, atoms)
    np.testing.assert_allclose(
        calculator.results["force_std"], np.linalg.norm(uncertainty.forces, axis=1)
    )


def test_spread_needs_owners_of_ghosts(fitted: FitResult) -> None:
    watched = SpreadPotential(fitted.potential, fitted.posterior)
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(DataError, match="1 ghost atoms"):
        watched.evaluate_pairs(np.zeros(2, dtype=np.int64), none, none, np.zeros((0, 3)), 1)
