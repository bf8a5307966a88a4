"""Potentials with every feature of Pacemaker's, against results of ML-PACE kept in data/."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io import read

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.radial import core_repulsion
from aiida_autopipe.core.errors import PotentialFileError
from tests.core.ace.conftest import DATA

NAMES = ("W_rank6", "CuH_density", "OSi_zbl", "AlCuNi", "AlNi_half")
NON_LINEAR = ("CuH_density", "OSi_zbl")
BAR = 1.6021765e6


def active_set(size):
    """The matrices the recorded gamma were computed with."""
    i = np.arange(size)
    return np.cos((i[:, None] + 1.0) * (i + 2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The recorded potentials with their active sets as .asi files."""
    folder = tmp_path_factory.mktemp("mlpace")
    for name in NAMES:
        shutil.copy(DATA / "mlpace" / f"{name}.yaml", folder)
        sizes = json.loads((DATA / "mlpace" / f"{name}.json").read_text())["active_set"]
        with (folder / f"{name}.asi").open("wb") as stream:
            np.savez(stream, **{element: active_set(size) for element, size in sizes.items()})
    return folder


def recorded(name):
    """Pairs of structure and results."""
    results = json.loads((DATA / "mlpace" / f"{name}.json").read_text())["structures"]
    for result in results:
        yield (
            Atoms(
                result["symbols"],
                positions=np.reshape(result["positions"], (-1, 3)),
                cell=np.reshape(result["cell"], (3, 3)),
                pbc=result["pbc"],
            ),
            {key: np.array(result[key]) for key in ("energies", "forces", "virial", "gamma")},
        )


def assert_same(potential, atoms, expected, gamma=True):
    ours = potential.evaluate(atoms, gamma=gamma)
    np.testing.assert_allclose(ours.energies, expected["energies"], rtol=1e-9)
    forces = expected["forces"].reshape(-1, 3)
    np.testing.assert_allclose(ours.forces, forces, atol=1e-9 * np.abs(forces).max())
    if ours.stress is not None:
        virial = expected["virial"]
        np.testing.assert_allclose(
            ours.stress * atoms.get_volume(), virial, atol=1e-9 * np.abs(virial).max()
        )
    if gamma:
        np.testing.assert_allclose(ours.gamma, expected["gamma"], rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_b_basis_file(folder, name):
    """Energies, forces, virial and gamma from .yaml and .asi, the order of columns with them."""
    potential = ACEPotential.load(folder / f"{name}.yaml")
    for atoms, expected in recorded(name):
        assert_same(potential, atoms, expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "AlNi_half"])
def test_yace_file(name):
    """Files ML-PACE itself made from the B-basis; OSi_zbl.yace lists Si before O."""
    potential = ACEPotential.load(DATA / "mlpace" / f"{name}.yace")
    assert not potential.has_active_set
    for atoms, expected in recorded(name):
        assert_same(potential, atoms, expected, gamma=False)


def test_reference_energies_follow_the_elements(tmp_path):
    """Si stands before O in this file."""
    text = (DATA / "mlpace" / "OSi_zbl.yace").read_text()
    assert "elements: [Si, O]\nE0: [0, 0]" in text
    (tmp_path / "p.yace").write_text(text.replace("E0: [0, 0]", "E0: [-2.5, 7]"))
    potential = ACEPotential.load(tmp_path / "p.yace")
    assert potential.elements == ["O", "Si"]
    assert potential.reference_energies == {"O": 7.0, "Si": -2.5}
    for atoms, expected in recorded("OSi_zbl"):
        shift = [potential.reference_energies[symbol] for symbol in atoms.symbols]
        found = potential.evaluate(atoms).energies
        np.testing.assert_allclose(found, expected["energies"] + shift, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "AlNi_half"])
def test_yace_with_its_b_basis(folder, tmp_path, name):
    for suffix in (".yaml", ".asi"):
        shutil.copy(folder / f"{name}{suffix}", tmp_path)
    shutil.copy(DATA / "mlpace" / f"{name}.yace", tmp_path)
    potential = ACEPotential.load(tmp_path / f"{name}.yace")
    for atoms, expected in recorded(name):
        assert_same(potential, atoms, expected)


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(folder, tmp_path, name):
    """Both files we write hold the same numbers, bit for bit."""
    first = ACEPotential.load(folder / f"{name}.yaml")
    suffixes = [path.suffix for path in first.save(tmp_path / name)]
    assert suffixes == [".yace", ".yaml", ".asi", ".in"]
    second = ACEPotential.load(tmp_path / f"{name}.yace")
    np.testing.assert_array_equal(second.coefficients, first.coefficients)
    assert second.embeddings == first.embeddings
    assert second.basis.functions == first.basis.functions
    for pair, bond in first.basis.bonds.items():
        assert second.basis.bonds[pair].equals(bond)
        assert second.basis.bonds[pair].absent == bond.absent
    second.save(tmp_path / "again")
    for suffix in (".yace", ".yaml", ".asi"):
        again = (tmp_path / f"again{suffix}").read_bytes()
        assert again == (tmp_path / name).with_suffix(suffix).read_bytes()
    (tmp_path / f"{name}.asi").unlink()
    alone = ACEPotential.load(tmp_path / f"{name}.yace")
    alone.save(tmp_path / "alone")
    assert (tmp_path / "alone.yace").read_text() == (tmp_path / f"{name}.yace").read_text()
    for atoms, expected in recorded(name):
        assert_same(alone, atoms, expected, gamma=False)


def test_features_are_covered():
    """What the recorded potentials stand for; shrinking them must not go unnoticed."""
    potentials = {name: ACEPotential.load(DATA / "mlpace" / f"{name}.yaml") for name in NAMES}
    radials = [b.radial for p in potentials.values() for b in p.basis.bonds.values()]
    embeddings = [e for p in potentials.values() for e in p.embeddings.values()]
    assert {r.name for r in radials} == {"ChebExpCos", "ChebPow", "ChebLinear", "SBessel"}
    for inner_type in ("distance", "density", "zbl"):
        with_core = [r for r in radials if r.inner_type == inner_type and r.has_core_repulsion]
        assert any(r.inner_cutoff > 0 for r in with_core)
    assert {e.npoti for e in embeddings if not e.is_linear} == {
        "FinnisSinclair",
        "FinnisSinclairShiftedScaled",
    }
    assert {e.n_densities for e in embeddings} == {1, 2, 3}
    assert set(potentials["W_rank6"].basis.ranks) == {1, 2, 3, 4, 5, 6}
    assert len(potentials["AlCuNi"].elements) == 3
    bonds = potentials["AlCuNi"].basis.bonds
    assert len({(b.nradmax, b.lmax, b.radial.n_functions) for b in bonds.values()}) > 3
    for name in NON_LINEAR:
        sizes = json.loads((DATA / "mlpace" / f"{name}.json").read_text())["active_set"]
        basis = potentials[name].basis
        assert sum(sizes.values()) > basis.n_functions


def test_structures_look_at_the_transitions():
    """Some atoms sit on the smooth steps of the inner cutoff, not only beside them."""
    on_step = {"CuH_density": 0, "OSi_zbl": 0}
    for name in on_step:
        potential = ACEPotential.load(DATA / "mlpace" / f"{name}.yaml")
        for atoms, _ in recorded(name):
            types = potential.basis.types(atoms)
            centre, neighbour, vectors = full_neighbour_list(atoms, potential.cutoff)
            distances = np.linalg.norm(vectors, axis=1)
            for i, element in enumerate(atoms.symbols):
                near = [
                    (r, potential.basis.bonds[types[i], types[j]].radial)
                    for r, j in zip(distances[centre == i], neighbour[centre == i], strict=True)
                ]
                if name == "OSi_zbl":
                    r, spec = min(near, key=lambda x: x[0] - x[1].inner_cutoff + x[1].inner_width)
                    on_step[name] += spec.inner_cutoff - spec.inner_width < r < spec.inner_cutoff
                else:
                    core = sum(core_repulsion(s, np.array([r]), (0, 0))[0][0] for r, s in near)
                    e = potential.embeddings[element]
                    low = e.rho_core_cutoff - e.drho_core_cutoff
                    on_step[name] += low < core < e.rho_core_cutoff
    assert min(on_step.values()) >= 3


def test_missing_block_means_no_interaction_in_one_direction(folder):
    potential = ACEPotential.load(folder / "AlNi_half.yaml")
    pair = Atoms("AlNi", positions=[[0, 0, 0], [1.6, 0, 0]])
    energies = potential.evaluate(pair).energies
    assert energies[0] != 0
    assert energies[1] == 0


@pytest.mark.parametrize("suffix", ["yace", "yaml"])
def test_pacemaker_fit_in_lammps(suffix):
    """Cu_fs: a Pacemaker fit with two densities, evaluated by LAMMPS."""
    potential = ACEPotential.load(DATA / f"Cu_fs.{suffix}")
    assert potential.has_active_set
    results = json.loads((DATA / "Cu_fs.json").read_text())
    for atoms, result in zip(read(DATA / "Cu_fs.extxyz", ":"), results, strict=True):
        expected = result["extrapolation"]
        ours = potential.evaluate(atoms, gamma=True)
        assert ours.energy == pytest.approx(expected["energy"], rel=1e-8)
        np.testing.assert_allclose(ours.energies, expected["energies"], rtol=2e-8)
        np.testing.assert_allclose(ours.gamma, expected["gamma"], rtol=1e-6)
        # LAMMPS turns a cell into lower-triangular form, and everything with it.
        prism = Prism(atoms.cell[:], pbc=atoms.pbc)
        forces = prism.vector_to_lammps(ours.forces)
        scale = np.abs(ours.forces).max()
        np.testing.assert_allclose(forces, expected["forces"], atol=1e-6 * scale)
        xx, yy, zz, yz, xz, xy = ours.stress
        turn = prism.vector_to_lammps(np.eye(3))
        stress = turn.T @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ turn
        found = -BAR * stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        bar = np.array(expected["stress_bar"])
        np.testing.assert_allclose(found, bar, atol=1e-6 * np.abs(bar).max())


@pytest.mark.parametrize("name", NON_LINEAR)
def test_gamma_of_the_other_kind(folder, tmp_path, name):
    """The shapes of the matrices decide between the linear and the non-linear grade."""
    shutil.copy(folder / f"{name}.yaml", tmp_path)
    potential = ACEPotential.load(folder / f"{name}.yaml")
    basis = potential.basis
    sizes = dict(zip(basis.elements, np.diff(basis.offsets), strict=True))
    inverse = {element: active_set(int(n)) for element, n in sizes.items()}
    linear = dataclasses.replace(potential, inverse_active_set=inverse)
    for atoms, _ in recorded(name):
        values = potential.descriptors(atoms)
        expected = [
            np.abs(values[i, basis.columns(s)] @ inverse[s]).max()
            for i, s in enumerate(atoms.symbols)
        ]
        found = linear.evaluate(atoms, gamma=True).gamma
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    one, other = basis.elements
    mixed = {one: inverse[one], other: potential.inverse_active_set[other]}
    with pytest.raises(PotentialFileError, match=f"{one} is linear, that of {other} is not"):
        dataclasses.replace(potential, inverse_active_set=mixed)
    with (tmp_path / f"{name}.asi").open("wb") as stream:
        np.savez(stream, **mixed)
    with pytest.raises(PotentialFileError, match="all must be of one kind"):
        ACEPotential.load(tmp_path / f"{name}.yaml")
    with pytest.raises(PotentialFileError, match=r"expected \(\d+, \d+\) or \(\d+, \d+\)"):
        dataclasses.replace(potential, inverse_active_set={**inverse, one: np.eye(3)})
