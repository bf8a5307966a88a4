"""The material: known crystals, structure files, and one clear sentence for everything else."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.material import Material, material_from_atoms, read_material


@pytest.mark.parametrize(
    ("symbol", "spacegroup", "number", "primitive", "conventional", "system"),
    [
        ("Si", "Fd-3m", 227, 2, 8, "cubic"),
        ("Cu", "Fm-3m", 225, 1, 4, "cubic"),
        ("Fe", "Im-3m", 229, 1, 2, "cubic"),
        ("Mg", "P6_3/mmc", 194, 2, 2, "hexagonal"),
        ("As", "R-3m", 166, 2, 6, "trigonal"),
        ("Sn", "I4_1/amd", 141, 2, 4, "tetragonal"),
    ],
)
def test_crystals_of_elements(
    symbol: str, spacegroup: str, number: int, primitive: int, conventional: int, system: str
) -> None:
    material = read_material(symbol, Path())
    assert (material.spacegroup, material.spacegroup_number) == (spacegroup, number)
    assert len(material.primitive) == primitive
    assert len(material.conventional) == conventional
    assert material.crystal_system == system
    assert material.elements == [symbol]
    assert material.label == symbol


def test_both_cells_share_one_frame() -> None:
    material = read_material("Si", Path())
    assert np.allclose(material.conventional.cell.array, 5.43 * np.eye(3))
    # Each primitive lattice vector is half a face diagonal of the conventional cell.
    in_conventional = material.primitive.cell.array / 5.43
    assert np.allclose(np.abs(2 * in_conventional) % 1, 0)
    assert material.nearest_neighbour == pytest.approx(5.43 * np.sqrt(3) / 4)


def test_magnetic_moments_survive() -> None:
    material = read_material("Fe", Path())
    assert material.primitive.get_initial_magnetic_moments() == pytest.approx([2.3])
    antiferromagnet = bulk("Cr", cubic=True)
    antiferromagnet.set_initial_magnetic_moments([1.0, -1.0])
    assert len(material_from_atoms(antiferromagnet).primitive) == 2


@pytest.mark.parametrize("name", ["sic.cif", "POSCAR", "sic.extxyz"])
def test_structure_files(tmp_path: Path, name: str) -> None:
    crystal = bulk("SiC", "zincblende", a=4.36, cubic=True)
    write(tmp_path / name, crystal, **({"format": "vasp"} if name == "POSCAR" else {}))
    material = read_material(name, tmp_path)
    assert isinstance(material, Material)
    assert material.elements == ["C", "Si"]
    assert material.spacegroup == "F-43m"
    assert len(material.primitive) == 2
    assert read_material(str(tmp_path / name), Path("/nowhere")).spacegroup_number == 216


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Sj", "unknown element 'Sj'; did you mean 'Si'?"),
        ("si", "did you mean 'Si'?"),
        ("silicon", "did you mean 'Si'?"),
        ("Xx", "unknown element 'Xx'"),
        ("", "material is empty"),
        ("NaCl", "formulas are not supported yet"),
        ("Si2", "formulas are not supported yet"),
        ("Fe0.5Ni0.5", "formulas are not supported yet"),
        ("{Fe: 0.5}", "compositions are not supported yet"),
        ("N", "ASE knows N only as a molecule"),
        ("He", "ASE knows He only as a gas"),
        ("Pm", "ASE has no crystal structure for Pm"),
        ("B", "no atomic positions for the tetragonal crystal of B"),
        ("U", "no atomic positions for the orthorhombic crystal of U"),
        ("missing.cif", "missing.cif does not exist"),
        ("some/where", "does not exist"),
        ("P4x", "neither an element nor an existing structure file"),
    ],
)
def test_unusable_names(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_material(spec, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _overlapping() -> Atoms:
    return Atoms("Si2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True)


def _not_a_number() -> Atoms:
    atoms = bulk("Si")
    atoms.positions[1, 2] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (_overlapping(), "atoms 0 and 1 overlap, they are 0.100 Å apart"),
        (_not_a_number(), "the position of atom 1 is not a number"),
        (Atoms("Si", cell=[4, 4, np.nan], pbc=True), "the cell holds a value that is not a number"),
        (Atoms("Si", cell=[4, 4, 0], pbc=True), "the cell has no volume"),
        (Atoms("Si", cell=[4, 4, 4]), "not periodic"),
        (Atoms(cell=[4, 4, 4], pbc=True), "no atoms"),
        (Atoms("X", cell=[4, 4, 4], pbc=True), "no known element"),
    ],
)
def test_unusable_structures(atoms: Atoms, message: str) -> None:
    with pytest.raises(InputError, match=message):
        material_from_atoms(atoms)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.cif", "", "is empty"),
        ("blank.extxyz", " \n\n", "is empty"),
        ("none.cif", "# a comment and no more\n", "holds no structure"),
        ("broken.extxyz", '2\nLattice="1 0"\nSi 0 0 0\n', "cannot be read as a structure"),
        ("broken.cif", "data_x\n_cell_length_a 3.0\n", "broken.cif"),
        ("text.dat", "hello\n", "cannot be read as a structure"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_material(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_nan_in_a_file(tmp_path: Path) -> None:
    text = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'
    (tmp_path / "nan.extxyz").write_text(f"1\n{text}\nSi 0 nan 0\n")
    with pytest.raises(InputError, match="the position of atom 0 is not a number"):
        read_material("nan.extxyz", tmp_path)


def test_several_structures_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "two.extxyz", [bulk("Si"), bulk("Si")])
    with pytest.raises(InputError, match="holds 2 structures"):
        read_material("two.extxyz", tmp_path)
    (tmp_path / "folder.cif").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_material("folder.cif", tmp_path)


def test_partial_occupation_is_refused(tmp_path: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    write(tmp_path / "whole.cif", crystal)
    text = (tmp_path / "whole.cif").read_text().replace("1.0000", "0.5000")
    (tmp_path / "half.cif").write_text(text)
    assert read_material("whole.cif", tmp_path).spacegroup == "Fm-3m"
    with pytest.raises(InputError, match="partially occupied"):
        read_material("half.cif", tmp_path)
