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


@pytest.mark.parametrize("seed", [0, 1])
def test_twenty_labels_correct_the_base(
    base: FitResult, few: Dataset, test: Dataset, seed: int
) -> None:
    prior, rng = base.potential, np.random.default_rng(seed)
    delta = fit_ace(few, FitSettings(), test, prior=prior, rng=rng).metrics
    alone = fit_ace(few, SETTINGS, test, rng=np.random.default_rng(seed)).metrics["test"]
    for key in KEYS:
        assert delta["test"][key] < 0.75 * delta["prior_test"][key], key
        assert delta["test"][key] < (0.75 if "energy" in key else 0.99) * alone[key], key
