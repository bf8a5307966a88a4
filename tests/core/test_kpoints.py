"""k-point meshes from a spacing."""

import numpy as np
import pytest
from aiida.orm import KpointsData, StructureData
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.kpoints import mesh_from_spacing, mesh_of_strained, unstrained_cell


def test_simple_cubic_by_hand() -> None:
    cell = np.eye(3) * 4.0  # |b| = pi / 2
    assert mesh_from_spacing(cell, [True] * 3, np.pi / 8) == (4, 4, 4)
    assert mesh_from_spacing(cell, [True] * 3, np.pi / 8 - 1e-3) == (5, 5, 5)
    assert mesh_from_spacing(cell, [True] * 3, 10.0) == (1, 1, 1)


def test_directions_are_independent() -> None:
    assert mesh_from_spacing(np.diag([2.0, 4.0, 8.0]), [True] * 3, np.pi / 4) == (4, 2, 1)


def test_spacing_is_not_exceeded() -> None:
    atoms = bulk("Si")
    mesh = mesh_from_spacing(atoms.cell.array, atoms.pbc, 0.3)
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(atoms.cell.array).T, axis=1)
    assert np.all(lengths / mesh <= 0.3 + 1e-5)
    assert np.all(lengths / (np.array(mesh) - 1) > 0.3)


@pytest.mark.parametrize("spacing", [0.15, 0.2, 0.3, np.pi / 8, np.pi / 8 * (1 - 1e-7)])
@pytest.mark.parametrize("name", ["Si", "Cu", "Mg", "cubic"])
def test_same_mesh_as_aiida(name: str, spacing: float) -> None:
    atoms = bulk("Po", "sc", a=4.0) if name == "cubic" else bulk(name)
    points = KpointsData()
    points.set_cell_from_structure(StructureData(ase=atoms))
    points.set_kpoints_mesh_from_density(spacing)
    assert (
        list(mesh_from_spacing(atoms.cell.array, atoms.pbc, spacing))
        == (points.get_kpoints_mesh()[0])
    )


def test_one_point_where_nothing_repeats() -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=1.0)
    assert mesh_from_spacing(slab.cell.array, slab.pbc, 0.3)[2] == 1
    water = molecule("H2O")
    assert mesh_from_spacing(water.cell.array, water.pbc, 0.3) == (1, 1, 1)


@pytest.mark.parametrize("spacing", [0.0, -0.2, float("nan")])
def test_unusable_spacing(spacing: float) -> None:
    with pytest.raises(InputError, match="must be positive"):
        mesh_from_spacing(np.eye(3), [True] * 3, spacing)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([1.0, 1.0, 0.0]), np.ones((3, 3))])
def test_periodic_cell_without_volume(cell: np.ndarray) -> None:
    with pytest.raises(InputError, match="no volume"):
        mesh_from_spacing(cell, [True] * 3, 0.3)


def strained(atoms: Atoms, strain: NDArray[np.float64]) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return copy


def test_strained_supercells_share_the_mesh_of_the_unstrained_crystal() -> None:
    rng = np.random.default_rng(1)
    atoms = bulk("Si")
    for repeats in ([1, 1, 1], [2, 1, 1], [2, 2, 2]):
        ideal = atoms.repeat(repeats)
        own = mesh_from_spacing(ideal.cell.array, ideal.pbc, 0.35)
        for strain in (*rng.uniform(-0.1, 0.1, (20, 3, 3)), -0.1 * np.eye(3)):
            assert mesh_of_strained(strained(ideal, strain), atoms, 0.35) == own
    # Which their own spacing would not give them:
    assert mesh_from_spacing(0.9 * atoms.cell.array, atoms.pbc, 0.35) != mesh_from_spacing(
        atoms.cell.array, atoms.pbc, 0.35
    )


def test_supercell_of_a_large_strained_cell_with_a_vacancy() -> None:
    """Nine repeats strained by 7 % are longer than nine and a half."""
    atoms = bulk("Cu", a=3.6)
    ideal = atoms.repeat((9, 8, 7))
    large = strained(ideal, np.diag([0.07, 0.06, 0.08]))
    del large[3]
    found = unstrained_cell(large, atoms)
    assert found is not None
    np.testing.assert_allclose(found, ideal.cell.array, atol=1e-9)


def test_other_cells_keep_their_own_spacing() -> None:
    atoms = bulk("Si")
    assert unstrained_cell(strained(atoms, 0.4 * np.eye(3)), atoms) is None
    assert unstrained_cell(Atoms("Si"), atoms) is None
    assert unstrained_cell(atoms, Atoms("Si")) is None
    slab = atoms.copy()
    slab.pbc = [True, True, False]
    assert mesh_of_strained(slab, atoms, 0.3) is None
    cubic = bulk("Si", cubic=True)
    found = unstrained_cell(strained(cubic, 0.02 * np.eye(3)), atoms)
    assert found is not None
    np.testing.assert_allclose(found, cubic.cell.array, atol=1e-9)
