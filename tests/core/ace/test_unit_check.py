from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiida_autopipe.core.ace.equations import Equations, FewRows
from aiida_autopipe.core.ace.fit import fit_ace
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.unit_check import check_units
from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import DataError

SILICON = Path(__file__).parent / "data" / "delta" / "target_train.extxyz"


def labelled(
    rng: np.random.Generator, energy: float, forces: float, n_structures: int = 24
) -> tuple[Equations, np.ndarray]:
    """10 functions; energies and forces of one truth times factors, and two families of structures
    of which one is 5 eV higher. The forces have some noise."""
    truth, numbers = rng.normal(size=10), np.arange(n_structures)
    equations = Equations(np.ones(10), 4)
    families = numbers % 2
    rows = {"energy": rng.normal(size=(n_structures, 10))}
    rows["forces"] = rng.normal(size=(9 * n_structures, 10))
    targets = {
        "energy": energy * (rows["energy"] @ truth) + 5.0 * families,
        "forces": forces * (rows["forces"] @ truth) + 0.01 * rng.normal(size=9 * n_structures),
    }
    for kind, matrix in rows.items():
        structure = np.repeat(numbers, len(matrix) // n_structures)
        ones = np.ones(len(matrix))
        equations.kept[kind] = FewRows(matrix, targets[kind], ones, structure % 4, structure)
        equations.use_kept(kind, targets[kind], ones > 0)
    return equations, families


def refusal(equations: Equations, families: np.ndarray) -> str:
    try:
        check_units(equations, FitSettings(), families)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("energy", "forces", "expected"),
    [
        (1.0, 1.0, ""),
        (2.0, 1.0, ""),
        (1.0 / 27.2, 1.0, "The energies of 24 structures differ 0.036"),
        (1.0, 1.0 / 51.4, "The energies of 24 structures differ 5"),
        (1.0, -1.0, "The energies of 24 structures fall where the forces say that they rise"),
        # Forces of noise and energies say nothing of each other.
        (1.0, 0.0, ""),
        (0.0, 1.0, ""),
    ],
)
def test_units_and_signs(energy: float, forces: float, expected: str) -> None:
    found = refusal(*labelled(np.random.default_rng(3), energy, forces))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_few_structures_show_nothing() -> None:
    assert refusal(*labelled(np.random.default_rng(3), 1.0, -1.0, 12)) != ""
    assert refusal(*labelled(np.random.default_rng(3), 1.0, -1.0, 11)) == ""


def test_what_forces_know_nothing_about_is_not_held_against_them() -> None:
    """Atoms far above crystals, and structures that are alone of their kind."""
    equations, families = labelled(np.random.default_rng(3), 1.0, 1.0)
    energies = equations.kept["energy"]
    energies.matrix[:3] = 0.0
    energies.targets[:3] = 50.0
    energies.targets[3:6] = [-40.0, -60.0, -80.0]
    families[3:6] = 2, 3, 4
    assert refusal(equations, families) == ""
    equations, _ = labelled(np.random.default_rng(3), 1.0, -1.0)
    assert refusal(equations, np.arange(len(families))) == ""


@pytest.mark.parametrize("missing", ["energy", "forces"])
def test_one_kind_of_label_is_not_compared(missing: str) -> None:
    equations, families = labelled(np.random.default_rng(3), 1.0, -1.0)
    del equations.kept[missing]
    assert refusal(equations, families) == ""


def changed(data: Dataset, energy: float, forces: float) -> Dataset:
    assert data.energy is not None and data.forces is not None
    return replace(data, energy=energy * data.energy[:], forces=forces * data.forces[:])


@pytest.mark.parametrize(
    ("energy", "forces", "expected"),
    [
        (1 / 13.6057, 1.0, "another unit"),
        (23.06, 1.0, "another unit"),
        (1.0, 1 / 51.422, "another unit"),
        (1.0, -1.0, "give forces, not gradients"),
    ],
)
def test_labels_of_silicon_in_other_units(energy: float, forces: float, expected: str) -> None:
    data = changed(read_dataset(SILICON), energy, forces)
    with pytest.raises(DataError, match=expected):
        fit_ace(data, FitSettings(search=1), rng=np.random.default_rng(0))
