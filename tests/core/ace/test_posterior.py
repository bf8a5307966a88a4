from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.equations import Choice, Equations, RowWeights
from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.posterior import Posterior, load_posterior, posterior_of
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import InputError, PotentialFileError

DATA = Path(__file__).parent / "data" / "mlearn" / "Si.extxyz"
CHOICE = Choice(RowWeights(energy=10.0, forces=1.0, stress=0.0), 0.2, 1.0)
NOISE = 0.3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(31)


@pytest.fixture
def linear(rng: np.random.Generator) -> tuple[Posterior, np.ndarray, np.ndarray]:
    """A posterior, its rows times their weights, and the precision of its prior."""
    equations = Equations(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1)
    energy, forces = rng.normal(size=(4, 5)), rng.normal(size=(30, 5))
    equations.sums["energy"][0].add_rows(energy, rng.normal(size=4), np.ones(4))
    equations.sums["forces"][0].add_rows(forces, rng.normal(size=30), np.ones(30))
    rows = np.vstack([10.0 * energy, forces])
    precision = 0.2 * (rows**2).sum(axis=0) * CHOICE.penalty(equations.degrees) ** 2
    mean = equations.solve(CHOICE)
    return posterior_of(equations, CHOICE, mean, NOISE / 10, NOISE), rows, np.diag(precision)


def test_covariance_is_that_of_bayesian_regression(
    linear: tuple[Posterior, np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    posterior, rows, precision = linear
    expected = NOISE**2 * np.linalg.inv(rows.T @ rows + precision)
    np.testing.assert_allclose(posterior.factor @ posterior.factor.T, expected, rtol=1e-9)
    new = rng.normal(size=(7, 5))
    np.testing.assert_allclose(
        posterior.std(new), np.sqrt(np.einsum("ij,jk,ik->i", new, expected, new))
    )


def test_a_committee_spreads_as_the_posterior(
    linear: tuple[Posterior, np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    posterior, _, _ = linear
    samples = posterior.samples(20_000, rng)
    covariance = posterior.factor @ posterior.factor.T
    np.testing.assert_allclose(samples.mean(axis=0), posterior.mean, atol=3e-3)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.05 * np.abs(covariance).max())


def test_functions_without_labels_have_no_spread() -> None:
    equations = Equations(np.ones(3), 1)
    rows = np.array([[1.0, 0.0, 2.0], [0.5, 0.0, 1.0], [2.0, 0.0, -1.0]])
    equations.sums["forces"][0].add_rows(rows, np.ones(3), np.ones(3))
    posterior = posterior_of(equations, CHOICE, equations.solve(CHOICE), 0.0, 0.1)
    assert not posterior.factor[1].any()
    assert posterior.std(np.eye(3)[:1]) > 0


@pytest.fixture(scope="module")
def silicon() -> Dataset:
    return read_dataset(DATA)


@pytest.fixture(scope="module")
def fitted(silicon: Dataset) -> FitResult:
    settings = FitSettings(cutoff=4.8, max_rank=3, max_functions=60)
    return fit_ace(silicon[::2], settings, rng=np.random.default_rng(3))


def test_uncertainties_fit_the_errors_of_structures_not_seen(
    silicon: Dataset, fitted: FitResult
) -> None:
    energies, forces = [], []
    for index in range(1, len(silicon), 2):
        atoms, labels = silicon.atoms(index), silicon.labels(index)
        found = fitted.potential.evaluate(atoms)
        spread = fitted.posterior.uncertainty(fitted.potential.basis, atoms)
        assert 0 < spread.energy < spread.energy_total
        assert (spread.forces < spread.forces_total).all()
        energies.append((found.energy - labels.energy) / spread.energy_total)
        unknown = np.abs(labels.forces) > 1e-6  # the others are zero by symmetry
        forces.append(((found.forces - labels.forces) / spread.forces_total)[unknown])
    assert 0.3 < np.sqrt(np.mean(np.square(energies))) < 3
    # The width is that of held-out errors of eleven structures, larger than those on the others.
    assert 0.2 < np.sqrt(np.mean(np.square(np.concatenate(forces)))) < 2


def test_uncertainty_grows_away_from_the_data(silicon: Dataset, fitted: FitResult) -> None:
    atoms = silicon.atoms(0)
    basis = fitted.potential.basis
    near = fitted.posterior.uncertainty(basis, atoms).energy
    atoms.set_cell(0.8 * atoms.cell[:], scale_atoms=True)
    assert fitted.posterior.uncertainty(basis, atoms).energy > 10 * near


def test_committee_members_differ_by_the_stated_spread(silicon: Dataset, fitted: FitResult) -> None:
    atoms = silicon.atoms(1)
    members = fitted.committee(400, np.random.default_rng(0))
    energies = [member.evaluate(atoms).energy for member in members]
    spread = fitted.posterior.uncertainty(fitted.potential.basis, atoms).energy
    assert np.std(energies) == pytest.approx(spread, rel=0.15)
    assert np.mean(energies) == pytest.approx(fitted.potential.evaluate(atoms).energy, abs=spread)


def test_files_read_back_and_belong_to_their_potential(tmp_path: Path, fitted: FitResult) -> None:
    path = tmp_path / "si.posterior.npz"
    fitted.posterior.save(path)
    n = len(fitted.posterior.mean)
    found = Posterior.load(path, n)
    np.testing.assert_array_equal(found.factor, fitted.posterior.factor)
    assert (found.energy_noise, found.force_noise) == (
        fitted.posterior.energy_noise,
        fitted.posterior.force_noise,
    )
    for size in (n + 1, n - 1):
        with pytest.raises(PotentialFileError, match="belongs to another potential"):
            Posterior.load(path, size)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(PotentialFileError, match="not a readable posterior"):
        Posterior.load(path, n)
    with pytest.raises(PotentialFileError, match="not a readable posterior"):
        Posterior.load(tmp_path / "none.npz", n)


def test_a_posterior_is_found_beside_its_potential(tmp_path: Path, fitted: FitResult) -> None:
    files = fitted.potential.save(tmp_path / "si")
    with pytest.raises(InputError, match=r"no posterior 'si.posterior.npz' .* with --posterior"):
        load_posterior(files[0], fitted.potential)
    fitted.posterior.save(tmp_path / "si.posterior.npz")
    for path in files[:2]:
        loaded = ACEPotential.load(path)
        np.testing.assert_array_equal(load_posterior(path, loaded).mean, fitted.posterior.mean)
    other = replace(loaded, coefficients=loaded.coefficients * (1 + 1e-6))
    with pytest.raises(PotentialFileError, match=r"not those of .*another potential"):
        load_posterior(files[0], other)
    squared = replace(loaded, embeddings={"Si": Embedding(parameters=(1.0, 0.5))})
    with pytest.raises(InputError, match="is not linear"):
        load_posterior(files[0], squared)
    (tmp_path / "si.yaml").unlink()
    with pytest.raises(InputError, match=r"no B functions.*keep si.yaml and si.asi beside it"):
        load_posterior(files[0], ACEPotential.load(files[0]))
