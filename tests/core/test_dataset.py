"""Datasets: round trips, slices, joining, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from aiida_autopipe.core.columns import column_array
from aiida_autopipe.core.dataset import Dataset, read_dataset, write_dataset
from aiida_autopipe.core.errors import DataError, InputError

METHOD_A = {"method": {"program": "emt", "fingerprint": "aaaa"}}
METHOD_B = {"method": {"program": "emt", "fingerprint": "bbbb"}}


def copper(n: int, seed: int = 0) -> list[Atoms]:
    """Rattled cells of 1 to 4 atoms with energies, forces and stresses of EMT."""
    rng = np.random.default_rng(seed)
    structures = []
    for k in range(n):
        atoms = bulk("Cu", a=3.6 + 0.05 * rng.normal()) * (1, 1, k % 4 + 1)
        atoms.positions += 0.05 * rng.normal(size=(len(atoms), 3))
        atoms.calc = EMT()
        atoms.info |= {"energy": atoms.get_potential_energy(), "stress": atoms.get_stress()}
        atoms.arrays["forces"] = atoms.get_forces()
        atoms.calc = None
        structures.append(atoms)
    return structures


def labelled(n: int = 6, seed: int = 0, **attributes: object) -> Dataset:
    columns = {
        "origin": ["rattle", "md"] * (n // 2),
        "generation": np.arange(n),
        "gamma_max": np.linspace(0, 1, n),
        "relax": [True, False] * (n // 2),
        "parameters": ['{"amplitude_A": 0.05, "of": "Cu, bulk"}'] * n,
    }
    return Dataset.from_atoms(copper(n, seed), columns=columns, attributes=attributes)


def assert_same(found: Dataset, expected: Dataset, atol: float = 0.0) -> None:
    for name in ("offsets", "numbers", "pbc", "positions", "cell", "energy", "forces", "stress"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)
    assert sorted(found.columns) == sorted(expected.columns)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)


def test_flat_layout() -> None:
    data = labelled(6)
    assert data.offsets.tolist() == [0, 1, 3, 6, 10, 11, 13]
    assert (len(data), data.n_atoms, data.elements) == (6, 13, ["Cu"])
    assert data.sizes.tolist() == [1, 2, 3, 4, 1, 2]
    assert data.labelled
    assert not data[:0].labelled
    with pytest.raises(IndexError):
        data.atoms(6)


def test_atoms_round_trip() -> None:
    data = labelled(4)
    assert_same(Dataset.from_atoms(list(data.iter_atoms())), data)
    atoms = data.atoms(1)
    assert atoms.calc is None
    assert isinstance(atoms.info["generation"], int)
    assert atoms.info["energy"] == data.labels(1).energy


@pytest.mark.parametrize("ending", ["h5", "hdf5"])
def test_hdf5_keeps_everything(tmp_path: Path, ending: str) -> None:
    data = labelled(6, **METHOD_A, reference_energies={"Cu": -0.1})
    data = replace(data, weight=np.linspace(0, 1, 6), force_mask=np.arange(13.0) % 2)
    write_dataset(data, tmp_path / f"data.{ending}")
    again = read_dataset(tmp_path / f"data.{ending}")
    assert_same(again, data)
    np.testing.assert_array_equal(again.weight, data.weight)
    np.testing.assert_array_equal(again.force_mask, data.force_mask)
    assert again.attributes == data.attributes
    assert again.content_hash() == data.content_hash()
    assert again.method_fingerprint == "aaaa"
    assert again.reference_energies == {"Cu": -0.1}
    assert list(tmp_path.iterdir()) == [tmp_path / f"data.{ending}"]


def test_extxyz_keeps_structures_labels_and_columns(tmp_path: Path) -> None:
    data = labelled(6)
    data = replace(data, weight=np.linspace(0, 1, 6), force_mask=np.arange(13.0) % 2)
    write_dataset(data, tmp_path / "data.extxyz")
    again = read_dataset(tmp_path / "data.extxyz")
    # extxyz has 8 decimals.
    assert_same(again, data, atol=6e-9)
    np.testing.assert_allclose(again.weight, data.weight)
    np.testing.assert_array_equal(again.force_mask, data.force_mask)


def test_empty_text_does_not_swallow_its_neighbour_in_extxyz(tmp_path: Path) -> None:
    data = labelled(2).with_columns(empty=["", ""], half=["", "x"], next=[1, 2])
    write_dataset(data, tmp_path / "data.extxyz")
    again = read_dataset(tmp_path / "data.extxyz")
    assert again.columns["next"].tolist() == [1, 2]
    assert again.columns["half"].tolist() == ["", "x"]
    assert again.labelled


def test_custom_keys_virial_and_full_stress(tmp_path: Path) -> None:
    expected = Dataset.from_atoms(copper(3))
    frames = []
    for atoms, index in zip(expected.iter_atoms(), range(3), strict=True):
        tensor = expected.stress[index][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
        frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
        frame.info |= {
            "dft_energy": atoms.info["energy"],
            "dft_virial": -tensor * atoms.get_volume(),
            "dft_stress": tensor,
        }
        frame.arrays["dft_forces"] = atoms.arrays["forces"]
        frames.append(frame)
    path = tmp_path / "other.extxyz"
    write(path, frames, format="extxyz")
    for stress_key in ("dft_virial", "dft_stress"):
        found = read_dataset(path, "dft_energy", "dft_forces", stress_key)
        assert_same(replace(found, columns={}), replace(expected, columns={}), atol=2e-8)
    assert not read_dataset(path).labelled
    with pytest.raises(InputError, match=r"other.extxyz'.*no energy under the key 'DFT_energy'"):
        read_dataset(path, energy_key="DFT_energy")


def test_the_name_energy_may_be_given(tmp_path: Path) -> None:
    """ASE's reader hides what is called energy, forces or stress in a calculator."""
    write_dataset(labelled(2), tmp_path / "data.extxyz")
    found = read_dataset(tmp_path / "data.extxyz", "energy", "forces", "stress")
    assert found.labelled
    assert found.stress is not None


def test_other_formats(tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", bulk("Si"), format="vasp")
    data = read_dataset(tmp_path / "POSCAR")
    assert (len(data), data.n_atoms, data.labelled) == (1, 2, False)
    with pytest.raises(InputError, match="use one of the endings"):
        write_dataset(data, tmp_path / "data.cif")


# ------------------------------------------------------------------ slices


SELECTIONS = [
    slice(None), slice(2, 5), slice(None, None, -2), [3], [4, 1, 1, 0], [], [-1],
    np.array([True, False, True, True, False, False]),
]  # fmt: skip


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_slices_of_an_open_file_equal_slices_in_memory(tmp_path: Path, selection: object) -> None:
    data = replace(labelled(6), weight=np.linspace(0, 1, 6))
    data.write_hdf5(tmp_path / "data.h5")
    expected = data[selection]
    with Dataset.open(tmp_path / "data.h5") as lazy:
        assert not isinstance(lazy.positions, np.ndarray)
        found = lazy[selection]
        assert lazy.content_hash() == data.content_hash()
        assert lazy.elements == ["Cu"]
        for atoms, same in zip(lazy.iter_atoms(), data.iter_atoms(), strict=True):
            assert atoms == same
    assert isinstance(found.positions, np.ndarray)
    assert_same(found, expected)
    assert found.content_hash() == expected.content_hash()
    kept = list(np.arange(6)[selection])
    assert [a.info["generation"] for a in expected.iter_atoms()] == kept


def test_a_single_number_is_no_selection() -> None:
    with pytest.raises(InputError, match="slice, a mask or a list, not 3"):
        labelled(6)[3]


# ------------------------------------------------------------------ joining


def test_concatenate_fills_what_is_missing() -> None:
    first = replace(labelled(2), weight=np.array([0.5, 2.0]), force_mask=np.zeros(3))
    second = Dataset.from_atoms([bulk("Si")], columns={"role": ["eos"], "generation": [7]})
    joined = Dataset.concatenate([first, second])
    assert joined.elements == ["Cu", "Si"]
    assert np.isnan(joined.energy[2]) and np.isnan(joined.forces[3:]).all()
    assert np.isnan(joined.stress[2]).all()
    assert joined.weight.tolist() == [0.5, 2.0, 1.0]
    assert joined.force_mask.tolist() == [0, 0, 0, 1, 1]
    assert joined.columns["role"].tolist() == ["", "", "eos"]
    assert joined.columns["generation"].tolist() == [0, 1, 7]
    assert joined.columns["relax"].tolist() == [True, False, False]
    assert np.isnan(joined.columns["gamma_max"][2])
    assert joined.labels(2).energy is None and joined.labels(2).forces is None
    assert not joined.labelled
    joined.validate()
    assert_same(joined[:2], replace(first, columns=joined[:2].columns))
    assert "energy" not in joined.atoms(2).info


def test_a_dataset_with_missing_labels_survives_a_file(tmp_path: Path) -> None:
    joined = Dataset.concatenate([labelled(2), Dataset.from_atoms([bulk("Si")])])
    write_dataset(joined, tmp_path / "data.h5")
    assert read_dataset(tmp_path / "data.h5").labels(2).energy is None


def test_methods_must_agree_between_labelled_parts() -> None:
    first, second = labelled(2, **METHOD_A), labelled(2, 1, **METHOD_B)
    with pytest.raises(InputError, match=r"different methods \(aaaa, bbbb\)"):
        Dataset.concatenate([first, second])
    assert Dataset.concatenate([first, first]).method_fingerprint == "aaaa"
    unlabelled = Dataset.from_atoms([bulk("Cu")], attributes=METHOD_B)
    assert Dataset.concatenate([first, unlabelled]).method_fingerprint == "aaaa"


def test_reference_energies_are_merged_element_by_element() -> None:
    first = labelled(2, reference_energies={"Cu": -1.0}, note="old")
    second = labelled(2, reference_energies={"Cu": -1.0 + 5e-7, "Si": -3.0}, note="new")
    joined = Dataset.concatenate([first, second])
    assert joined.reference_energies == {"Cu": -1.0, "Si": -3.0}
    assert joined.attributes["note"] == "new"
    third = labelled(2, reference_energies={"Cu": -1.00001})
    with pytest.raises(InputError, match=r"reference energy of Cu is -1.000000 eV"):
        Dataset.concatenate([first, third])


def test_nothing_to_concatenate() -> None:
    with pytest.raises(InputError, match="Nothing to concatenate"):
        Dataset.concatenate([])
    empty = labelled(2)[:0]
    assert len(Dataset.concatenate([empty, empty])) == 0


def test_columns_of_different_types_are_refused() -> None:
    first, second = labelled(2), labelled(2).with_columns(origin=[1, 2])
    with pytest.raises(InputError, match="Column 'origin' has different types"):
        Dataset.concatenate([first, second])
    numbers = Dataset.concatenate([first, first.with_columns(generation=[0.5, 1.5])])
    assert numbers.columns["generation"].tolist() == [0, 1, 0.5, 1.5]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("x", [[1, 2]], "one value per structure, not shape"),
        ("x", [1 + 2j], "only float, int, bool and str"),
        ("x", [None], "only float, int, bool and str"),
        ("a/b", [1], "cannot be called 'a/b'"),
        ("energy", [1.0], "cannot be called 'energy'"),
    ],
)
def test_unusable_columns(name: str, values: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        column_array(name, values)


def test_column_of_the_wrong_length() -> None:
    with pytest.raises(InputError, match="'x' has 3 values for 2 structures"):
        labelled(2).with_columns(x=[1, 2, 3])


# ------------------------------------------------------------------ hash


def test_content_hash_follows_the_content() -> None:
    data = labelled(4)
    assert data.content_hash() == labelled(4).content_hash()
    changed = [
        data[:3],
        data[[1, 0, 2, 3]],
        data.with_columns(generation=[1, 1, 2, 3]),
        data.with_attributes(a=1),
        replace(data, energy=data.energy + 1e-12),
        replace(data, stress=None),
    ]
    hashes = {data.content_hash(), *(other.content_hash() for other in changed)}
    assert len(hashes) == len(changed) + 1


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("positions", 3, np.nan, "Structure 2 has NaN or infinite positions"),
        ("cell", 1, np.inf, "Structure 1 has a NaN or infinite cell"),
        ("cell", 3, 0.0, "Structure 3 is periodic but its cell has no volume"),
        ("energy", 2, np.inf, "Structure 2 has a NaN or infinite energy"),
        ("forces", (4, 1), np.nan, "Structure 2 has NaN or infinite forces"),
        ("stress", (0, 2), np.nan, "Structure 0 has a NaN or infinite stress"),
        ("weight", 1, np.nan, "Structure 1 has a NaN or infinite weight"),
    ],
)
def test_validate_names_the_structure(name: str, index: object, value: float, message: str) -> None:
    data = replace(labelled(4), weight=np.ones(4))
    array = getattr(data, name).copy()
    array[index] = value
    with pytest.raises(DataError, match=message):
        replace(data, **{name: array}).validate()


def test_validate_refuses_empty_things() -> None:
    with pytest.raises(DataError, match="contains no structures"):
        labelled(2)[:0].validate()
    data = labelled(2)
    with pytest.raises(DataError, match="Structure 1 has no atoms"):
        replace(data[[0, 0]], offsets=np.array([0, 2, 2]), positions=np.zeros((2, 3))).validate()
    with pytest.raises(DataError, match="Structure 1 has no atoms"):
        Dataset.from_atoms([bulk("Cu"), Atoms()])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("Hello, this is a letter.\n", "cannot be read as structures"),
        ('1\nLattice="3 0 0 0 3 0 0 0 3" energy=nan\nCu 0 0 0\n', "Structure 0 .* energy"),
        ('1\nLattice="3 0 0 0 3 0 0 0 0" pbc="T T T"\nCu 0 0 0\n', "has no volume"),
        ("1\nProperties=species:S:1:pos:R:3\nCu nan 0 0\n", "NaN or infinite positions"),
        ("1\nProperties=species:S:1:pos:R:3\nCo2 0 0 0\n", "KeyError 'Co2'"),
        ("1\nProperties=species:S:1:pos:R:3\nSo 0 0 0\n", "element 'So', which does not exist"),
    ],
)
def test_unusable_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.extxyz"
    path.write_text(content)
    with pytest.raises(DataError, match=f"bad.extxyz'.*{message}"):
        read_dataset(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        read_dataset(tmp_path / "none.h5")
