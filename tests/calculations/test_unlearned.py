"""Errors of a potential on labels it has not learned, through AiiDA."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.orm import ArrayData
from ase.build import bulk

from aiida_autopipe.calculations.unlearned import judge_unlearned
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.rdf import distribution
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from tests.reference.copper import copper_potential, labelled_copper


@pytest.fixture
def potential(aiida_profile: Any, tmp_path: Path) -> PotentialData:
    files = {path.name: path for path in copper_potential().save(tmp_path / "copper")}
    return PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": -2.5})


def arrays(node: ArrayData) -> dict[str, Any]:
    return {name: node.get_array(name) for name in node.get_arraynames()}


def test_errors_and_structure_of_whole_frames(potential: PotentialData) -> None:
    data = labelled_copper(3, np.random.default_rng(5))
    data = data.with_columns(step=[10, 40, 20], generation=[2] * 3, simulation=[7, 7, 8])
    found = arrays(judge_unlearned(DatasetData(data), potential))
    assert found["step"].tolist() == [10, 40, 20]
    assert found["simulation"].tolist() == [7, 7, 8]
    assert found["whole"].all() and found["atoms"].tolist() == [8, 8, 8]
    ace = potential.get_potential()
    for index in range(3):
        atoms, labels = data.atoms(index), data.labels(index)
        evaluated = ace.evaluate(atoms)
        assert found["energy_reference"][index] == labels.energy / 8
        assert found["energy_potential"][index] == pytest.approx(evaluated.energy / 8)
        error = evaluated.forces - labels.forces
        assert found["forces_rmse"][index] == pytest.approx(np.sqrt(np.mean(error**2)))
        assert found["forces_size"][index] == pytest.approx(np.sqrt(np.mean(labels.forces**2)))
        np.testing.assert_allclose(found["g"][index], distribution([atoms]).g)
        np.testing.assert_allclose(found["coordination"][index], distribution([atoms]).coordination)


def test_a_cut_out_counts_with_the_forces_that_are_learned(potential: PotentialData) -> None:
    """Its energy and its structure are not those of the simulation."""
    whole = labelled_copper(1, np.random.default_rng(5))
    mask = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    atoms = whole.atoms(0)
    atoms.arrays["force_mask"] = mask
    found = arrays(judge_unlearned(DatasetData(Dataset.from_atoms([atoms])), potential))
    assert not found["whole"][0]
    assert np.isnan(found["energy_reference"][0]) and np.isnan(found["g"]).all()
    error = potential.get_potential().evaluate(atoms).forces - whole.labels(0).forces
    assert found["forces_rmse"][0] == pytest.approx(np.sqrt(np.mean(error[:2] ** 2)))
    assert found["step"].tolist() == [-1]


def test_another_element_is_refused_in_a_sentence(potential: PotentialData) -> None:
    data = DatasetData(Dataset.from_atoms([bulk("Si", cubic=True)]))
    _, node = judge_unlearned.run_get_node(data, potential)
    assert not node.is_finished_ok
    assert "Si" in node.exit_message
