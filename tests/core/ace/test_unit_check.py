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
    """10 functions; energies and forces of one truth times factors, and energies of two elements
    on top of them. The forces have some noise."""
    truth, numbers = rng.normal(size=10), np.arange(n_structures)
    equations = Equations(np.ones(10), 4)
    first = rng.uniform(size=n_structures)
    composition = np.column_stack([first, 1.0 - first])
    rows = {"energy": rng.normal(size=(n_structures, 10))}
    rows["forces"] = rng.normal(size=(9 * n_structures, 10))
    targets = {
        "energy": energy * (rows["energy"] @ truth) + composition @ [30.0, -20.0],
        "forces": forces * (rows["forces"] @ truth) + 0.01 * rng.normal(size=9 * n_structures),
    }
    for kind, matrix in rows.items():
        structure = np.repeat(numbers, len(matrix) // n_structures)
        ones = np.ones(len(matrix))
        equations.kept[kind] = FewRows(matrix, targets[kind], ones, structure % 4, structure)
        equations.use_kept(kind, targets[kind], ones > 0)
    return equations, composition


def refusal(equations: Equations, composition: np.ndarray) -> str:
    try:
        check_units(equations, FitSettings(), composition)
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


@pytest.mark.parametrize("missing", ["energy", "forces"])
def test_one_kind_of_label_is_not_compared(missing: str) -> None:
    equations, composition = labelled(np.random.default_rng(3), 1.0, -1.0)
    del equations.kept[missing]
    assert refusal(equations, composition) == ""


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
