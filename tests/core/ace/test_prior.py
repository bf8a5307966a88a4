from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.prior import load_prior, prior_metric
from aiida_autopipe.core.ace.spool import active_sets
from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import InputError

DATA = Path(__file__).parent / "data" / "mlearn" / "Si.extxyz"
SMALL = FitSettings(cutoff=4.8, max_rank=3, max_functions=60)


@pytest.fixture(scope="module")
def silicon() -> Dataset:
    return read_dataset(DATA)


@pytest.fixture(scope="module")
def base(silicon: Dataset) -> FitResult:
    return fit_ace(silicon[::2], SMALL, rng=np.random.default_rng(3))


def fit_from(base: ACEPotential, data: Dataset, **settings: object) -> FitResult:
    return fit_ace(data, FitSettings(**settings), prior=base, rng=np.random.default_rng(0))


def test_a_strong_prior_leaves_the_base_as_it_is(silicon: Dataset, base: FitResult) -> None:
    data = silicon[1:8:2]
    found = fit_from(base.potential, data, regularisation=1e6, stress_weight=0.0)
    scale = np.abs(base.potential.coefficients).max()
    np.testing.assert_allclose(
        found.potential.coefficients, base.potential.coefficients, atol=1e-3 * scale
    )


def test_labels_of_the_base_itself_change_nothing(silicon: Dataset, base: FitResult) -> None:
    data = silicon[1:10:2]
    labels = [base.potential.evaluate(atoms) for atoms in data.iter_atoms()]
    own = replace(
        data,
        energy=np.array([label.energy for label in labels]),
        forces=np.concatenate([label.forces for label in labels]),
        stress=None,
    )
    found = fit_from(base.potential, own)
    assert found.metrics["train"]["forces_mae"] < 1e-6
    np.testing.assert_allclose(
        found.potential.coefficients, base.potential.coefficients, rtol=1e-4, atol=1e-6
    )
    assert found.potential.reference_energies["Si"] == pytest.approx(
        base.potential.reference_energies["Si"], abs=1e-6
    )


def test_another_energy_zero_is_not_a_correction(silicon: Dataset, base: FitResult) -> None:
    data = silicon[1:10:2]
    shifted = replace(data, energy=data.energy + 1000.0 * data.sizes)
    found, moved = (fit_from(base.potential, d) for d in (data, shifted))
    np.testing.assert_allclose(
        moved.potential.coefficients, found.potential.coefficients, rtol=1e-4, atol=1e-5
    )
    assert moved.metrics["prior_train"]["energy_mae_per_atom"] == pytest.approx(
        found.metrics["prior_train"]["energy_mae_per_atom"], abs=1e-6
    )


def test_the_active_set_is_continued(silicon: Dataset, base: FitResult) -> None:
    new = silicon[1::2]
    found = fit_from(base.potential, new, stress_weight=0.0)
    gamma = [found.potential.evaluate(a, gamma=True).gamma.max() for a in silicon.iter_atoms()]
    assert max(gamma[1::2]) <= 1.001 + 1e-6
    # Environments of the base that were not active are not looked at again, but stay near.
    assert max(gamma) < 2


def test_continuing_is_as_good_as_starting_again(silicon: Dataset, base: FitResult) -> None:
    basis = base.potential.basis
    whole = active_sets(silicon, basis)["Si"]
    continued = active_sets(silicon[1::2], basis, start=base.potential.inverse_active_set)["Si"]
    volumes = [np.linalg.slogdet(found.rows)[1] for found in (whole, continued)]
    first = np.linalg.slogdet(np.linalg.inv(base.potential.inverse_active_set["Si"]))[1]
    assert volumes[1] > first
    assert volumes[1] == pytest.approx(volumes[0], abs=0.02 * abs(volumes[0]))
    again = active_sets(silicon[::2], basis, start=base.potential.inverse_active_set)["Si"]
    np.testing.assert_allclose(again.inverse, base.potential.inverse_active_set["Si"], rtol=1e-6)


def test_the_metric_is_the_mean_square_energy_of_active_atoms(base: FitResult) -> None:
    rows = base.active_sets["Si"].rows
    change = np.random.default_rng(5).normal(size=base.potential.basis.n_functions)
    metric = prior_metric(base.potential)
    assert change @ metric @ change == pytest.approx(np.mean((rows @ change) ** 2), rel=1e-6)
    assert prior_metric(replace(base.potential, inverse_active_set=None)) is None


def test_files_of_a_base(tmp_path: Path, base: FitResult) -> None:
    base.potential.save(tmp_path / "base")
    assert load_prior(tmp_path / "base.yace").has_active_set
    (tmp_path / "base.asi").unlink()
    found = load_prior(tmp_path / "base.yace")
    np.testing.assert_array_equal(found.coefficients, base.potential.coefficients)
    assert found.reference_energies == base.potential.reference_energies
    (tmp_path / "base.yaml").unlink()
    with pytest.raises(InputError, match=r"no B functions.*base.yaml"):
        load_prior(tmp_path / "base.yace")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutoff": 5.0}, "cutoff cannot be given with a prior"),
        ({"candidates_per_function": 2}, "candidates_per_function cannot be given with a prior"),
        ({"max_functions": 10}, "max_functions cannot be given with a prior"),
        ({"zbl": True}, "has no ZBL repulsion"),
    ],
)
def test_settings_that_contradict_a_prior(
    silicon: Dataset, base: FitResult, settings: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit_from(base.potential, silicon[:4], **settings)


def test_priors_that_cannot_be_used(silicon: Dataset, base: FitResult) -> None:
    potential = base.potential
    bent = replace(
        potential,
        inverse_active_set=None,
        embeddings={"Si": Embedding((1.0, 0.5))},
    )
    with pytest.raises(InputError, match="not linear: Si has 1 densities"):
        fit_from(bent, silicon[:4])
    numbers = np.array(silicon.numbers)
    numbers[0] = 6
    with pytest.raises(InputError, match="contains C, but the prior knows only Si"):
        fit_from(potential, replace(silicon, numbers=numbers))
