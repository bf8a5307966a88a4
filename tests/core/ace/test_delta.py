"""Delta learning from SevenNet-0 to PBE: see data/README.md for the labels."""

from pathlib import Path

import numpy as np
import pytest

from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.dataset import Dataset, read_dataset

DATA = Path(__file__).parent / "data" / "delta"
SETTINGS = FitSettings(cutoff=5.0, max_rank=4, max_functions=300, search=1)
KEYS = ("energy_mae_per_atom", "energy_rmse_per_atom", "forces_mae", "forces_rmse")


@pytest.fixture(scope="module")
def base() -> FitResult:
    return fit_ace(read_dataset(DATA / "base.extxyz"), SETTINGS, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def few() -> Dataset:
    return read_dataset(DATA / "target_train.extxyz")


@pytest.fixture(scope="module")
def test() -> Dataset:
    return read_dataset(DATA / "target_test.extxyz")


def test_twenty_labels_correct_the_base(base: FitResult, few: Dataset, test: Dataset) -> None:
    """On the mean of three seeds, which deal the labels to the folds of the cross validation."""
    prior, ratios = base.potential, []
    for seed in range(3):
        delta = fit_ace(few, FitSettings(), test, prior=prior, rng=np.random.default_rng(seed))
        alone = fit_ace(few, SETTINGS, test, rng=np.random.default_rng(seed)).metrics["test"]
        found, begun = delta.metrics["test"], delta.metrics["prior_test"]
        ratios.append([[found[key] / other[key] for key in KEYS] for other in (begun, alone)])
    to_base, to_alone = np.mean(ratios, axis=0)
    assert (to_base < 0.7).all()
    assert (to_alone < [0.9, 0.9, 0.97, 0.97]).all()


def test_few_labels_are_held_by_the_metric(base: FitResult, few: Dataset, test: Dataset) -> None:
    """Two cannot tell how much of the base to keep, and do no harm."""
    delta = fit_ace(
        few[:2], FitSettings(), test, prior=base.potential, rng=np.random.default_rng(0)
    )
    alone = fit_ace(few[:2], SETTINGS, test, rng=np.random.default_rng(0)).metrics["test"]
    assert delta.chosen["prior_share"] == 1.0
    for key in KEYS:
        assert delta.metrics["test"][key] < 1.05 * delta.metrics["prior_test"][key], key
        assert delta.metrics["test"][key] < alone[key], key
