"""What a vector of atoms or neighbours must not change."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.basis import Basis, build_basis
from aiida_autopipe.core.ace.functions import BasisSettings, coupled_function
from aiida_autopipe.core.ace.potential import ACEPotential


@pytest.fixture(scope="module")
def potential():
    """Two elements, many neighbours, an active set of random numbers."""
    basis = build_basis(BasisSettings(("Ge", "Si"), cutoff=4.0, max_rank=4, max_functions=60))
    rng = np.random.default_rng(5)
    inverse = {e: rng.normal(size=(60, 60)) for e in basis.elements}
    coefficients = rng.normal(size=basis.n_functions) * 10.0**-basis.ranks
    return ACEPotential(basis, coefficients, {}, inverse)


def crystal(seed, repeat=(2, 2, 3)):
    atoms = bulk("Si", cubic=True) * repeat
    rng = np.random.default_rng(seed)
    atoms.symbols[rng.uniform(size=len(atoms)) < 0.4] = "Ge"
    atoms.rattle(0.1, seed=seed)
    return atoms


def test_atoms_do_not_depend_on_those_beside_them_in_a_vector(potential):
    """Molecules far apart: together, in any order, to the last digit as alone."""
    molecules = [
        Atoms(symbols, positions=np.random.default_rng(k).uniform(0, 3.5, (len(symbols), 3)))
        for k, symbols in enumerate((["Si"] * 3, ["Ge", "Si"], ["Ge"] * 4, ["Si"], ["Ge"] * 2))
    ]
    together = Atoms()
    for k, molecule in enumerate(molecules):
        moved = molecule.copy()
        moved.positions += [64.0 * k, 0, 0]
        together += moved
    result = potential.evaluate(together, gamma=True)
    alone = [potential.evaluate(molecule, gamma=True) for molecule in molecules]
    for name in ("energies", "forces", "gamma"):
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(
            getattr(result, name), expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max()
        )


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_change_digits_only(potential, threads):
    atoms = crystal(1)
    one = potential.evaluate(atoms, gamma=True)
    several = potential.evaluate(atoms, gamma=True, threads=threads)
    again = potential.evaluate(atoms, gamma=True, threads=threads)
    np.testing.assert_array_equal(several.energies, one.energies)
    np.testing.assert_array_equal(several.forces, again.forces)
    np.testing.assert_allclose(several.gamma, one.gamma, rtol=1e-12)
    np.testing.assert_allclose(several.forces, one.forces, atol=1e-13 * np.abs(one.forces).max())
    np.testing.assert_allclose(several.stress, one.stress, rtol=1e-10)


def test_threads_of_a_design_block(potential):
    atoms = crystal(2)
    one = potential.basis.design_block(atoms)
    several = potential.basis.design_block(atoms, threads=2)
    np.testing.assert_array_equal(several.values, one.values)
    for name in ("force_rows", "virial_rows"):
        expected = getattr(one, name)
        np.testing.assert_allclose(
            getattr(several, name), expected, atol=1e-12 * np.abs(expected).max()
        )


@pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
def test_design_block_and_forces_agree(potential, scale):
    """With a few neighbours and with several blocks of them."""
    atoms = crystal(3, (1, 1, 1))
    atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    result, block = potential.evaluate(atoms, gamma=True), potential.basis.design_block(atoms)
    c = potential.coefficients[:, 0]
    forces = (block.force_rows @ c).reshape(-1, 3)
    np.testing.assert_allclose(result.energies, block.values @ c, rtol=1e-10)
    np.testing.assert_allclose(result.forces, forces, atol=1e-10 * np.abs(forces).max())
    stress = block.virial_rows @ c / atoms.cell.volume
    np.testing.assert_allclose(result.stress, stress, atol=1e-10 * np.abs(stress).max())
    for element in potential.elements:
        values = block.values[atoms.symbols == element, potential.basis.columns(element)]
        grades = np.abs(values @ potential.inverse_active_set[element]).max(axis=1)
        np.testing.assert_allclose(result.gamma[atoms.symbols == element], grades, rtol=1e-9)


def test_structure_of_ghosts_only(potential):
    empty = np.zeros(0, dtype=np.int64)
    result = potential.evaluate_pairs(np.zeros(3, dtype=np.int64), empty, empty, [], 0, True)
    assert result.energies.shape == result.gamma.shape == (0,)
    assert not result.forces.any()
    assert result.forces.shape == (3, 3)


def test_element_without_functions(potential):
    """A centre without functions has no energy; its neighbours feel it all the same."""
    bonds = potential.basis.bonds
    pair = [coupled_function(0, ((mu, 1, 1), (mu, 2, 1)), ()) for mu in (0, 1)]
    basis = Basis(("Ge", "Si"), bonds, tuple(pair))
    atoms = Atoms("GeSi3", positions=[[0, 0, 0], [2, 0, 0], [0, 2.1, 0], [0, 0, 2.2]])
    result = ACEPotential(basis, np.ones(2)).evaluate(atoms)
    assert result.energies[0] != 0.0
    assert not result.energies[1:].any()
    assert np.abs(result.forces[1:]).max() > 1e-3
    np.testing.assert_allclose(result.forces.sum(axis=0), 0.0, atol=1e-14)
    block = basis.design_block(atoms)
    np.testing.assert_allclose(block.force_rows.sum(axis=1).reshape(-1, 3), result.forces)


def test_high_momenta():
    """Blocks of neighbours become narrow where many harmonics are needed."""
    ell = 40
    bond = build_basis(BasisSettings(("Si",), cutoff=4.0, nradmax=(2,) * 4, lmax=(0, ell, 0, 0)))
    functions = [coupled_function(0, ((0, 1, k), (0, 2, k)), ()) for k in (1, 30, ell)]
    basis = Basis(("Si",), bond.bonds, tuple(functions))
    atoms = Atoms("Si4", positions=np.random.default_rng(2).uniform(0, 2.5, (4, 3)))
    turned = atoms.copy()
    turned.rotate(50, (1, 2, 3))
    np.testing.assert_allclose(basis.values(turned), basis.values(atoms), rtol=1e-8)
    block, h = basis.design_block(atoms), 1e-5
    energies = []
    for step in (h, -h):
        moved = atoms.copy()
        moved.positions[1, 2] += step
        energies.append(basis.values(moved).sum(axis=0))
    numeric = -(energies[0] - energies[1]) / (2 * h)
    np.testing.assert_allclose(
        block.force_rows[5], numeric, atol=1e-5 * np.abs(block.force_rows).max()
    )
