"""Symmetry operations in Cartesian form, and what follows from them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.strain import apply_strain
from aiida_autopipe.core.symmetry import (
    align_to_conventional_axes,
    find_symmetry,
    has_internal_freedom,
    independent_strains,
    rotate_strain,
    rotate_stress,
    strain_tensor,
    stress_tensor,
)

ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def turned(atoms: Atoms) -> Atoms:
    rotation = ROTATION * np.sign(np.linalg.det(ROTATION))
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ rotation.T)
    result.positions = atoms.positions @ rotation.T
    return result


def triclinic() -> Atoms:
    rng = np.random.default_rng(0)
    return Atoms("SiGe", rng.random((2, 3)) * 3, cell=np.eye(3) * 4 + rng.random((3, 3)), pbc=True)


@pytest.mark.parametrize(
    ("atoms", "number", "order", "n_conventional"),
    [
        (bulk("Si"), 227, 48, 8),
        (bulk("Si", cubic=True), 227, 48, 8),
        (bulk("Cu"), 225, 48, 4),
        (bulk("Mg"), 194, 24, 2),
        (bulk("Fe"), 229, 48, 2),
    ],
)
def test_known_crystals(atoms: Atoms, number: int, order: int, n_conventional: int) -> None:
    symmetry = find_symmetry(atoms)
    assert symmetry.number == number
    assert len(symmetry.rotations) == order
    assert symmetry.atoms_per_conventional_cell == n_conventional
    assert symmetry.cubic == (number >= 195)
    unit = symmetry.rotations @ symmetry.rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(3), unit.shape), atol=1e-10)


@pytest.mark.parametrize(
    ("atoms", "directions"),
    [(bulk("Si"), [0, 3]), (bulk("Mg"), [0, 2, 3]), (triclinic(), [0, 1, 2, 3, 4, 5])],
)
def test_independent_strains(atoms: Atoms, directions: list[int]) -> None:
    chosen = independent_strains(find_symmetry(atoms))
    assert [int(np.argmax(unit)) for unit in chosen] == directions


def test_rotating_strain_and_stress_keeps_the_work() -> None:
    rng = np.random.default_rng(1)
    strain, stress = rng.normal(size=6), rng.normal(size=6)
    rotations = find_symmetry(turned(bulk("Si"))).rotations
    work = np.einsum("gi,gi->g", rotate_strain(strain, rotations), rotate_stress(stress, rotations))
    np.testing.assert_allclose(work, strain @ stress, atol=1e-10)
    assert np.sum(strain_tensor(strain) * stress_tensor(stress)) == pytest.approx(strain @ stress)


@pytest.mark.parametrize(
    ("strain", "free"),
    [([0.01, 0, 0, 0, 0, 0], False), ([0, 0, 0, 0.01, 0, 0], True), ([0.02] * 3 + [0] * 3, False)],
)
def test_internal_freedom_of_strained_diamond(strain: list[float], free: bool) -> None:
    assert has_internal_freedom(apply_strain(bulk("Si"), strain)) is free


def test_internal_freedom_of_other_cells() -> None:
    assert not has_internal_freedom(bulk("Cu", cubic=True))
    vacancy = bulk("Cu", cubic=True).repeat(2)
    del vacancy[0]
    assert has_internal_freedom(vacancy)
    assert has_internal_freedom(triclinic())
    assert not has_internal_freedom(bulk("Si").repeat(4))
    assert has_internal_freedom(bulk("ZnO", "wurtzite", a=3.25, c=5.2))  # u of wurtzite


def test_align_turns_cubic_axes_back() -> None:
    aligned = align_to_conventional_axes(turned(bulk("Si")))
    rotations = find_symmetry(aligned).rotations
    np.testing.assert_allclose(np.abs(rotations), np.round(np.abs(rotations)), atol=1e-8)
    straight = bulk("Si")
    np.testing.assert_array_equal(align_to_conventional_axes(straight).cell, straight.cell)


def test_unusable_structures() -> None:
    with pytest.raises(InputError, match="H2O is not periodic"):
        find_symmetry(molecule("H2O"))
    overlapping = Atoms("Si2", [[0, 0, 0], [0, 0, 1e-6]], cell=np.eye(3) * 4, pbc=True)
    with pytest.raises(InputError, match="overlapping"):
        find_symmetry(overlapping)
