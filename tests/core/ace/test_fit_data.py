import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.environments import (
    distinct_environments,
    neighbour_distance,
    shortest_distances,
)
from aiida_autopipe.core.ace.fit_data import LabelScales, TrainingSet
from aiida_autopipe.core.ace.references import resolve_reference_energies
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import DataError

DATA = Path(__file__).parent / "data" / "mlearn" / "Si.extxyz"
PLAIN = LabelScales(math.inf, math.inf)
ENERGIES = {"Si": -5.0}


@pytest.fixture(scope="module")
def silicon() -> Dataset:
    return read_dataset(DATA)


def test_low_energies_and_small_forces_count_more(silicon: Dataset) -> None:
    plain = TrainingSet(silicon, ENERGIES, PLAIN)
    scaled = TrainingSet(silicon, ENERGIES, LabelScales(energy=0.2, force=1.0))
    lowest = np.nanmin(plain.energy_per_atom)
    for index in (0, 7, 20):
        before, after = plain.labels(index), scaled.labels(index)
        factor = 1 / (1 + (plain.energy_per_atom[index] - lowest) / 0.2)
        assert after.weight == pytest.approx(before.weight * factor)
        size = np.linalg.norm(before.forces, axis=1)
        np.testing.assert_allclose(after.force_weight, before.force_weight * factor / (1 + size**2))
        assert before.weight == 1.0


def test_equal_structures_share_a_fold(silicon: Dataset) -> None:
    data = silicon[[0, 1, 2, 1, 3, 0, 4, 1]]
    training = TrainingSet(data, ENERGIES, PLAIN)
    assert training.groups.tolist() == [0, 1, 2, 1, 3, 0, 4, 1]
    folds = training.deal(3, np.random.default_rng(0))
    assert folds[0] == folds[5]
    assert folds[1] == folds[3] == folds[7]
    assert set(folds) == {0, 1, 2}


def test_equal_structures_of_different_energy_are_refused(silicon: Dataset) -> None:
    data = silicon[[0, 1, 0]]
    energy = np.array(data.energy)
    energy[2] += 0.02 * data.sizes[2]
    with pytest.raises(DataError, match=r"Structures 0 and 2 are the same, .* by 20.0 meV/atom"):
        TrainingSet(replace(data, energy=energy), ENERGIES, PLAIN)


def test_core_repulsion_is_taken_off_every_label(silicon: Dataset) -> None:
    zbl = ZBL(1.5, 2.6)
    plain, less = (TrainingSet(silicon, ENERGIES, PLAIN, z).labels(3) for z in (None, zbl))
    core = zbl.evaluate(silicon.atoms(3))
    assert np.abs(core.forces).max() > 1e-3
    assert less.energy == pytest.approx(plain.energy - core.energies.sum())
    np.testing.assert_allclose(less.forces, plain.forces - core.forces)
    np.testing.assert_allclose(less.virial, plain.virial - core.virial)


def test_two_atoms_on_one_spot_are_named() -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0]])
    atoms.info["energy"] = 1.0
    with pytest.raises(DataError, match="Structure 0: Atoms"):
        TrainingSet(Dataset.from_atoms([atoms]), ENERGIES, PLAIN, ZBL(0.5, 1.0))


def test_huge_offsets_cancel(silicon: Dataset) -> None:
    shifted = replace(silicon, energy=silicon.energy - 1e5 * silicon.sizes)
    found = [
        TrainingSet(data, resolve_reference_energies(data, None)[0], PLAIN).energy_per_atom
        for data in (silicon, shifted)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-8)


def test_reference_energies_of_a_correction(silicon: Dataset) -> None:
    predicted = np.array(silicon.energy) + 0.25 * silicon.sizes
    energies, source = resolve_reference_energies(silicon, None, predicted)
    assert energies["Si"] == pytest.approx(-0.25)
    assert source == "average of the data set"


def test_lengths_and_diversity_of_a_crystal() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.info["energy"] = 1.0
    data = Dataset.from_atoms([atoms])
    assert neighbour_distance(data) == pytest.approx(2.82)
    expected = {("Cl", "Cl"): 3.988, ("Cl", "Na"): 2.82, ("Na", "Na"): 3.988}
    found = shortest_distances(data)
    assert {k: pytest.approx(v, abs=1e-3) for k, v in expected.items()} == found
    assert distinct_environments(data, 5.0, 10) == {"Cl": 1, "Na": 1}
