"""Conditions on structures, given as text, and lazy filters of files."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_autopipe.core.conditions import all_of, condition
from aiida_autopipe.core.data_summary import Summary
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.dataset_writer import DatasetWriter
from aiida_autopipe.core.errors import DataError, InputError


@pytest.fixture
def data() -> Dataset:
    made = [bulk("Si"), molecule("H2O"), bulk("Si", cubic=True), bulk("Si")]
    for k, atoms in enumerate(made[:3]):
        atoms.info |= {"energy": -4.0 * (k + 1), "stress": np.arange(6.0) * k}
        atoms.arrays["forces"] = np.full((len(atoms), 3), float(k))
    columns = {"origin": ["md", "", "a b", "md"], "gamma": [1.0, np.nan, 3, 4], "ok": [True] * 4}
    return Dataset.from_atoms(made, columns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n_atoms>2", [1, 2]), ("n_atoms != 2", [1, 2]), ("n_Si>=2", [0, 2, 3]), ("n_O=1", [1]),
        ("energy<-5", [1, 2]), ("energy_per_atom<=-2", [0, 1]), ("max_force>1", [1, 2]),
        ("max_force<20", [0, 1, 2]), ("max_stress<7.5", [0, 1]), ("volume_per_atom<1", [1]),
        ("volume>100", [2]), ("origin=md", [0, 3]), ("origin == 'a b'", [2]),
        ("origin!=md", [2]), ("gamma>1", [2, 3]), ("gamma!=1", [2, 3]), ("ok=true", [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_conditions(data: Dataset, text: str, expected: list[int]) -> None:
    np.testing.assert_array_equal(np.flatnonzero(condition(text)(data)), expected)


def test_several(data: Dataset) -> None:
    np.testing.assert_array_equal(all_of(["n_atoms>2", "n_O=0"])(data), [False, False, True, False])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_force <", "is not NAME OPERATOR VALUE"),
        ("__import__('os').system('x')", "is not NAME OPERATOR VALUE"),
        ("foo<1", r"no 'foo' to filter by; there are: n_atoms, .*, gamma, ok, origin"),
        ("origin<1", "is text, which has no order"),
        ("energy<x", "'x' is not a number"),
    ],
)
def test_unusable_conditions(data: Dataset, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        condition(text)(data)


def test_filters_of_an_open_file(data: Dataset, tmp_path: Path) -> None:
    data.write_hdf5(tmp_path / "a.h5")
    with Dataset.open(tmp_path / "a.h5") as lazy, DatasetWriter(tmp_path / "b.h5") as writer:
        for part in lazy.filter(condition("n_atoms>1"), lambda atoms: atoms.pbc.all(), n_atoms=3):
            assert isinstance(part.numbers, np.ndarray) and part.n_atoms <= 8
            writer.append(part)
        with pytest.raises(InputError, match=r"A filter gave float64 of shape \(1,\)"):
            list(lazy.filter(lambda block: np.ones(1), n_atoms=1))
    assert Dataset.read_hdf5(tmp_path / "b.h5").content_hash() == data[[0, 2, 3]].content_hash()


def test_blocks_and_selections_read_what_they_need(data: Dataset, tmp_path: Path) -> None:
    data.write_hdf5(tmp_path / "a.h5")
    with Dataset.open(tmp_path / "a.h5") as lazy:
        assert not isinstance(lazy.columns["origin"], np.ndarray)
        assert [len(block) for block in lazy.iter_blocks(5)] == [2, 1, 1]
        assert [a.get_chemical_formula() for a in lazy.iter_atoms()] == ["Si2", "H2O", "Si8", "Si2"]
        for selection in (slice(1, 3), [3, 0], np.array([True, False, True, False]), slice(0, 0)):
            found, expected = lazy[selection], data[selection]
            assert found.content_hash() == expected.content_hash()
        assert lazy.elements == data.elements and not lazy.labelled
        assert lazy.content_hash() == data.content_hash()
        assert lazy.columns["origin"][2] == "a b" and lazy.columns["gamma"][-1] == 4
        assert lazy.columns["ok"].tolist() == [True] * 4
        np.testing.assert_array_equal(np.asarray(lazy.energy), data.energy)


def test_wrong_numbers_are_found_when_they_are_read(data: Dataset, tmp_path: Path) -> None:
    import h5py

    data.write_hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as handle:
        handle["numbers"][10] = 500
    with Dataset.open(tmp_path / "a.h5") as lazy:
        assert len(lazy[:2]) == 2
        with pytest.raises(DataError, match="not atomic numbers"):
            lazy[:]


def test_summary(data: Dataset) -> None:
    whole, parts = Summary(), Summary()
    whole.add(data)
    for block in data.iter_blocks(1):
        parts.add(block)
    assert whole == parts
    found = whole.as_dict()
    assert found["n_structures"] == 4 and found["n_atoms"] == 15 and found["periodic"] == 3
    assert found["composition"] == {"H": 2, "O": 1, "Si": 12}
    assert found["labels"] == {"energy": 3, "forces": 3, "stress": 3}
    assert found["ranges"]["energy_per_atom"] == (-8 / 3, -1.5)
    assert found["columns"]["origin"] == {"type": "text", "values": {"md": 2, "": 1, "a b": 1}}
    assert found["columns"]["gamma"] == {"type": "float", "range": [1.0, 4.0]}
    assert Summary().add(Dataset.from_atoms([Atoms("H")])) is None
