"""`autopipe.train` with the real trainer."""

from typing import Any

import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, Int
from ase import Atoms
from ase.calculators.lj import LennardJones

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.train import TrainWorkChain

SETTINGS = {"cutoff": 4.5, "max_rank": 2, "max_functions": 12, "n_folds": 2}


@pytest.fixture
def labelled(rattled: list[Atoms]) -> Dataset:
    """Rattled cells with Lennard-Jones labels: the fit does not care where they come from."""
    structures = []
    for cell in rattled * 2:
        atoms = cell.copy()
        atoms.positions += 0.01 * len(structures)
        atoms.calc = LennardJones(sigma=2.1, epsilon=0.5, rc=4.5, smooth=True)
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.arrays["forces"] = atoms.get_forces()
        atoms.info["stress"] = atoms.get_stress()
        atoms.calc = None
        structures.append(atoms)
    attributes = {"reference_energies": {"Si": 0.0}, "method": {"fingerprint": "lj"}}
    return Dataset.from_atoms(structures, attributes=attributes)


@pytest.fixture
def run_train(python_code: Any) -> Any:
    """Run `TrainWorkChain` on a dataset."""

    def run(dataset: Dataset, settings: dict[str, Any] = SETTINGS, fraction: float = 0.2) -> Any:
        return run_get_node(
            TrainWorkChain,
            dataset=DatasetData(dataset),
            trainer="autopipe.ace",
            settings=Dict(settings),
            split=Dict({"test_fraction": fraction}),
            seed=Int(3),
            code=python_code,
        )

    return run


def test_potential_metrics_and_parts(run_train: Any, labelled: Dataset) -> None:
    """The potential is fitted to the training part and judged on both."""
    outputs, node = run_train(labelled)
    assert node.is_finished_ok
    train, test = outputs["train"], outputs["test"]
    assert train.n_structures + test.n_structures == len(labelled)
    assert test.n_structures >= 1
    potential = outputs["potential"]
    assert potential.elements == ["Si"]
    assert potential.fit["train"] == train.base.attributes.get("content_hash")
    assert set(outputs["metrics"]["metrics"]) >= {"train", "test"}
    first = train.get_dataset()
    energy = potential.get_potential().evaluate(first.atoms(0)).energy
    assert energy == pytest.approx(first.labels(0).energy, abs=0.2)


def test_the_same_seed_gives_the_same_potential(run_train: Any, labelled: Dataset) -> None:
    """Two runs with one seed agree to the last digit."""
    first, second = (run_train(labelled)[0]["potential"] for _ in range(2))
    contents = [
        p.base.repository.get_object_content("potential.yace", mode="rb") for p in (first, second)
    ]
    assert contents[0] == contents[1]


def test_unlabelled_structures_are_refused(run_train: Any, rattled: list[Atoms]) -> None:
    """Labels are needed for every structure."""
    _, node = run_train(Dataset.from_atoms(rattled))
    assert node.exit_status == TrainWorkChain.exit_codes.ERROR_UNLABELLED.status


def test_one_structure_is_too_few(run_train: Any, labelled: Dataset) -> None:
    """One structure cannot be split."""
    _, node = run_train(labelled[:1])
    assert node.exit_status == TrainWorkChain.exit_codes.ERROR_TOO_FEW.status
    assert "there are 1" in node.exit_message


def test_failed_fit_gives_its_own_words(run_train: Any, labelled: Dataset) -> None:
    """Reference energies that lack the element are refused by the fit, in its words."""
    wrong = labelled.with_attributes(reference_energies={"Ge": 0.0})
    _, node = run_train(wrong)
    assert node.exit_status == TrainWorkChain.exit_codes.ERROR_FIT_FAILED.status
    assert "Si" in node.exit_message
