"""The material: known crystals, structure files, and one clear sentence for everything else."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from ase.neighborlist import neighbor_list

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
    write(tmp_path / name, crystal, format="vasp" if name == "POSCAR" else None)
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
        ("Fe2", "write 'material: Fe' for the element"),
        ("FeNj", "Nj is no chemical element; did you mean 'Ni'?"),
        ("MoS2", "no crystal structure is known for this formula"),
        ("{Fe: 0.5}", "a composition is a block and no text"),
        ("N", "ASE knows N only as a molecule"),
        ("He", "ASE knows He only as a gas"),
        ("Pm", "ASE has no crystal structure for Pm"),
        ("B", "no atomic positions for the tetragonal crystal of B"),
        ("U", "no atomic positions for the orthorhombic crystal of U"),
        ("missing.cif", "missing.cif does not exist"),
        ("some/where", "does not exist"),
        ("P4x", "neither an element nor a formula nor an existing structure file"),
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


def _read(spec: str | dict[str, Any], molecular: bool = False) -> Material:
    return read_material(spec, Path("/nowhere"), molecular)


@pytest.mark.parametrize(
    ("formula", "spacegroup", "atoms", "distance"),
    [
        ("NaCl", "Fm-3m", 2, 2.820),
        ("ClNa", "Fm-3m", 2, 2.820),
        ("SiC", "F-43m", 2, 1.888),
        ("CsCl", "Pm-3m", 2, 3.571),
        ("CaF2", "Fm-3m", 3, 2.366),
        ("Li2O", "Fm-3m", 3, 2.000),
        ("TiO2", "P4_2/mnm", 6, 1.949),
        ("ZnO", "P6_3mc", 4, 1.97),
        ("Ni3Al", "Pm-3m", 4, 2.526),
        ("NiAl", "Pm-3m", 2, 2.500),
        ("TiAl", "P4/mmm", 2, 2.832),
        ("Al2O3", "R-3c", 10, 1.855),
        ("SiO2", "P3_121", 9, 1.605),
        ("YN", "Fm-3m", 2, 2.61),
    ],
)
def test_formulas_are_crystals(formula: str, spacegroup: str, atoms: int, distance: float) -> None:
    material = _read(formula)
    assert material.kind == "crystal"
    assert material.spacegroup == spacegroup
    assert len(material.primitive) == atoms
    assert material.nearest_neighbour == pytest.approx(distance, abs=0.01)
    assert "a = " in material.note


def test_the_prototype_can_be_chosen() -> None:
    chosen = _read({"formula": "NaCl", "prototype": "B2", "a_A": 3.5})
    assert chosen.spacegroup == "Pm-3m"
    assert chosen.nearest_neighbour == pytest.approx(3.5 * np.sqrt(3) / 2)
    assert "given" in chosen.note


@pytest.mark.parametrize(
    ("spec", "lattice", "a", "formula"),
    [
        ("FeNi", "fcc", 3.57, {"Fe": 4, "Ni": 4}),
        ({"Fe": 0.5, "Ni": 0.5}, "fcc", 3.57, {"Fe": 4, "Ni": 4}),
        ({"Al": 0.75, "Mg": 0.25}, "fcc", 4.18, {"Al": 6, "Mg": 2}),
        ({"W": 0.5, "Ta": 0.5}, "bcc", 3.24, {"Ta": 4, "W": 4}),
        ("SiGe", "diamond", 5.55, {"Si": 4, "Ge": 4}),
        (
            {"Co": 0.2, "Cr": 0.2, "Fe": 0.2, "Mn": 0.2, "Ni": 0.2},
            "fcc",
            3.59,
            dict.fromkeys(("Co", "Cr", "Fe", "Mn", "Ni"), 2),
        ),
        (
            {"composition": {"Mg": 0.5, "Zn": 0.5}, "lattice": "hcp", "atoms": 12},
            "hcp",
            2.94,
            {"Mg": 6, "Zn": 6},
        ),
    ],
)
def test_alloys_have_the_exact_composition(
    spec: str | dict[str, Any], lattice: str, a: float, formula: dict[str, int]
) -> None:
    material = _read(spec)
    assert material.kind == "alloy"
    assert Counter(material.primitive.get_chemical_symbols()) == formula
    assert f"disordered on {lattice}, a = {a:.2f}"[:-1] in material.note
    assert sum(material.composition.values()) == pytest.approx(1)
    parent = material.lattice
    assert parent is not None
    per_atom = parent.get_volume() / len(parent)
    assert material.primitive.get_volume() / len(material.primitive) == pytest.approx(per_atom)
    again = _read(spec)
    assert np.array_equal(again.primitive.positions, material.primitive.positions)


def test_an_alloy_cell_is_compact_and_mixed() -> None:
    cell = _read("FeNi").primitive
    first, second, distance = neighbor_list("ijd", cell, 4.5)
    nearest = distance < distance.min() + 0.1
    unlike = np.mean(cell.numbers[first[nearest]] != cell.numbers[second[nearest]])
    assert unlike == pytest.approx(0.5, abs=0.05)
    assert cell.cell.lengths().min() > 3.5


@pytest.mark.parametrize("name", ["H2O", "CH3Cl", "H2S", "CO2"])
def test_molecules(name: str) -> None:
    material = _read(name)
    assert material.kind == "molecule"
    assert not material.periodic and not material.primitive.pbc.any()
    assert list(material.structures()) == ["molecule"]


def test_a_goal_for_molecules_finds_the_molecule_first() -> None:
    assert _read("NaCl").kind == "crystal"
    assert _read("NaCl", molecular=True).kind == "molecule"
    assert _read({"molecule": "NaCl"}).kind == "molecule"


def test_molecule_files_and_reactions(tmp_path: Path) -> None:
    frames = [molecule("HCN") for _ in range(3)]
    for step, atoms in enumerate(frames):
        atoms.positions[list(atoms.symbols).index("H")] += [0, 0.3 * step, 0.3 * step]
    write(tmp_path / "hcn.xyz", frames[0])
    write(tmp_path / "hnc.xyz", frames[2])
    write(tmp_path / "path.extxyz", frames)
    assert read_material("hcn.xyz", tmp_path).kind == "molecule"
    both = read_material({"reactants": "hcn.xyz", "products": "hnc.xyz"}, tmp_path)
    assert (both.kind, len(both.path)) == ("reaction", 2)
    path = read_material({"path": "path.extxyz"}, tmp_path)
    assert list(path.structures()) == ["path_000", "path_001", "path_002"]
    write(tmp_path / "other.xyz", frames[2][::-1])
    for spec, expected in (
        ({"reactants": "hcn.xyz", "products": "other.xyz"}, "atoms are in another order"),
        ({"reactants": "hcn.xyz", "products": "H2O"}, "are different atoms"),
        ({"reactants": "hcn.xyz", "products": "hcn.xyz"}, "they are the reactants"),
        ({"reactants": "hcn.xyz"}, "material.products: this key is missing"),
        ({"path": "hcn.xyz"}, "holds one structure"),
        ({"path": "no.xyz"}, "no.xyz does not exist"),
        ({"molecule": "path.extxyz"}, "holds 3 structures"),
    ):
        with pytest.raises(InputError, match=expected):
            read_material(spec, tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "material is empty"),
        ({"Fe": 0.5, "Nj": 0.5}, "'Nj' is no chemical element; did you mean 'Ni'?"),
        ({"Fe": 0.5, "Ni": 0.4}, "the fractions of Fe, Ni add up to 0.9, not to 1"),
        ({"Fe": "50 %", "Ni": 0.5}, "material.Fe: '50 %' must be a fraction"),
        ({"Fe": 1.0}, "write 'material: Fe'"),
        ({"Fe": 0.5, "Ni": -0.5}, "material.Ni: -0.5 must be a fraction"),
        ({"composition": {"Fe": 0.5, "Ni": 0.5}, "a_A": "3.5 nm"}, "must be a number of Å"),
        ({"composition": {"Fe": 0.5, "Ni": 0.5}, "latice": "fcc"}, "did you mean 'lattice'?"),
        ({"composition": {"Fe": 0.5, "Ni": 0.5}, "lattice": "f"}, "valid: fcc, hcp, bcc, diamond"),
        ({"composition": {"Fe": 0.5, "Ni": 0.5}, "atoms": 9}, "a cell of 9 atoms cannot hold"),
        ({"composition": {"Al": 0.99, "Mg": 0.01}}, "no cell of at most 32 atoms holds"),
        ({"compositon": {}}, "material.compositon: unknown key; did you mean 'composition'?"),
        ({"formula": "NaCl", "prototype": "rutile"}, "rutile has 1 atoms of one element for 2"),
        ({"formula": "NaCl", "prototype": "rock"}, "'rock' is not a valid choice; valid: rocksalt"),
        ({"formula": "MoS2"}, "material.prototype: this key is missing"),
        ({"molecule": "CH3Br"}, "ASE knows no molecule 'CH3Br'; near are CH3"),
        ({"molecule": "Si"}, "one atom is no molecule"),
        ({"products": "H2O"}, "material.reactants: this key is missing"),
    ],
)
def test_unusable_blocks(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _read(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
