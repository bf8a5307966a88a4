import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from aiida_autopipe.core.ace.basis import Basis, build_basis
from aiida_autopipe.core.ace.functions import BasisSettings, column_order, coupled_function
from aiida_autopipe.core.errors import DataError, InputError, PotentialFileError
from tests.reference import ace_naive


def naive(basis, atoms):
    spec = basis.bonds[0, 0].radial
    return ace_naive.b_values(
        atoms, basis.types(atoms), basis.functions, spec.cutoff, spec.lambda_, spec.outer_width
    )


@pytest.mark.parametrize("structure", ["alloy", "cluster"])
def test_values_against_the_definition(ternary, structure, request):
    atoms = request.getfixturevalue(structure)
    values = ternary.basis.values(atoms)
    expected = naive(ternary.basis, atoms)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(values, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(
        ternary.basis.design_block(atoms).values, values, rtol=1e-12, atol=1e-15
    )


def test_all_ranks_and_element_mixtures_are_there(ternary):
    basis = ternary.basis
    assert set(basis.ranks) == {1, 2, 3, 4, 5}
    assert basis.elements == ("Ge", "Si")
    for rank in (2, 3, 4):
        mixtures = {f.mus for f in basis.functions if f.rank == rank}
        assert mixtures >= {mus for mus in product((0, 1), repeat=rank) if list(mus) == sorted(mus)}
    assert all(sum(f.ls) % 2 == 0 for f in basis.functions)


@pytest.mark.parametrize("structure", ["alloy", "cluster"])
def test_design_rows_are_derivatives(ternary, structure, request):
    atoms = request.getfixturevalue(structure)
    basis, h = ternary.basis, 1e-5
    block = basis.design_block(atoms)
    scale = np.abs(block.force_rows).max(axis=0) + 1e-3
    np.testing.assert_allclose(block.energy_row, block.values.sum(axis=0))
    for atom, axis in ((0, 0), (1, 2), (3, 1), (4, 0)):
        energies = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            energies.append(basis.values(moved).sum(axis=0))
        numeric = -(energies[0] - energies[1]) / (2 * h)
        assert (np.abs(block.force_rows[3 * atom + axis] - numeric) / scale).max() < 1e-6


def test_virial_rows_are_strain_derivatives(ternary, alloy):
    basis, h = ternary.basis, 1e-5
    block = basis.design_block(alloy)
    scale = np.abs(block.virial_rows).max(axis=0) + 1e-3
    for row, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for step in (h, -h):
            strain = np.eye(3)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            strained = alloy.copy()
            strained.set_cell(alloy.cell[:] @ strain, scale_atoms=True)
            energies.append(basis.values(strained).sum(axis=0))
        numeric = (energies[0] - energies[1]) / (2 * h)
        assert (np.abs(block.virial_rows[row] - numeric) / scale).max() < 1e-6


def test_forces_sum_to_zero_and_shapes(ternary, alloy):
    block = ternary.basis.design_block(alloy)
    n, f = len(alloy), ternary.basis.n_functions
    assert block.values.shape == (n, f)
    assert block.energy_row.shape == (f,)
    assert block.force_rows.shape == (3 * n, f)
    assert block.virial_rows.shape == (6, f)
    total = block.force_rows.reshape(n, 3, f).sum(axis=0)
    assert np.abs(total).max() < 1e-10 * np.abs(block.force_rows).max()


def test_rotation_reflection_translation_permutation(ternary, cluster, rng):
    basis = ternary.basis
    expected = basis.values(cluster)
    order = rng.permutation(len(cluster))
    for matrix in (Rotation.random(rng=rng).as_matrix(), -Rotation.random(rng=rng).as_matrix()):
        moved = cluster[order]
        moved.positions = moved.positions @ matrix.T + [3.0, -20.0, 0.7]
        np.testing.assert_allclose(
            basis.values(moved), expected[order], atol=1e-10 * np.abs(expected).max()
        )


def test_atoms_along_the_poles(ternary):
    for axis in np.vstack([np.eye(3), -np.eye(3)]):
        dimer = Atoms("Si2", positions=[np.zeros(3), 2.3 * axis])
        rows = ternary.basis.design_block(dimer).force_rows
        tilted = Atoms("Si2", positions=[np.zeros(3), 2.3 * np.array([0.6, 0.48, 0.64])])
        np.testing.assert_allclose(
            ternary.basis.values(dimer), ternary.basis.values(tilted), atol=1e-10
        )
        along = rows.reshape(2, 3, -1)
        across = along - np.einsum("nak,a,b->nbk", along, axis, axis)
        assert np.abs(across).max() < 1e-9


def test_supercell_repeats_values(ternary):
    atoms = bulk("Ge")
    block = ternary.basis.design_block(atoms)
    big = ternary.basis.design_block(atoms * (2, 1, 2))
    np.testing.assert_allclose(big.energy_row, 4 * block.energy_row, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(big.virial_rows, 4 * block.virial_rows, atol=1e-9)


def test_one_atom_cell_has_no_forces(ternary):
    atoms = Atoms("Si", cell=[2.4, 2.5, 2.6], pbc=True)
    block = ternary.basis.design_block(atoms)
    assert np.abs(block.force_rows).max() < 1e-10 * np.abs(block.values).max()
    assert np.abs(block.virial_rows).max() > 0.1


def test_isolated_atom_is_zero(ternary):
    block = ternary.basis.design_block(Atoms("Si"))
    assert not block.values.any()
    assert not block.force_rows.any()


def test_functions_are_linearly_independent(rng):
    """As many independent values as functions on random environments: no singular active set."""
    basis = build_basis(
        BasisSettings(
            ("Si",),
            cutoff=4.5,
            max_rank=5,
            max_functions=250,
            nradmax=(5, 4, 3, 2, 2),
            lmax=(0, 4, 3, 2, 1),
        )
    )
    rows = []
    while sum(len(r) for r in rows) < 2 * basis.n_functions:
        atoms = Atoms("Si12", positions=rng.uniform(0, 6.0, (12, 3)))
        rows.append(basis.values(atoms))
    values = np.concatenate(rows)
    values /= np.linalg.norm(values, axis=0)
    assert np.linalg.matrix_rank(values, tol=1e-11) == basis.n_functions


def test_settings_limit_the_basis():
    settings = BasisSettings(("Si",), max_rank=3, max_functions=80)
    basis = build_basis(settings)
    assert basis.n_functions == 80
    assert basis.ranks.max() == 3
    assert basis.cutoff == settings.cutoff
    small = build_basis(BasisSettings(("Si",), max_functions=30))
    big = build_basis(BasisSettings(("Si",), max_functions=60))
    assert {f.factors for f in small.functions} <= {f.factors for f in big.functions}
    every = build_basis(BasisSettings(("Si",), max_rank=1, max_functions=1000))
    assert every.n_functions == settings.nradmax[0]


def test_default_basis_of_silicon():
    basis = build_basis(BasisSettings(("Si",)))
    assert basis.n_functions == 300
    assert set(basis.ranks) == {1, 2, 3, 4}


def test_columns_follow_the_order_of_active_sets(ternary):
    basis = ternary.basis
    keys = [(f.mu0, f.rank, f.mus, f.ns, f.ls) for f in basis.functions]
    assert keys == sorted(keys)
    reversed_basis = Basis(basis.elements, basis.bonds, basis.functions[::-1])
    assert reversed_basis.functions == basis.functions
    assert basis.columns("Ge") == slice(0, 400)
    assert basis.columns("Si") == slice(400, 800)


def test_rank_six(rng):
    """Values by the definition, and rows of the design matrix by finite differences."""
    bond = build_basis(BasisSettings(("Ge", "Si"), cutoff=3.4, nradmax=(4,) * 4, lmax=(3,) * 4))
    factors = ((0, 1, 1), (1, 2, 1), (0, 1, 1), (1, 1, 0), (1, 2, 2), (0, 2, 1))
    functions = [
        coupled_function(mu0, factors, lint)
        for mu0 in (0, 1)
        for lint in ((1, 1, 1, 1), (2, 1, 3, 3), (0, 1, 1, 1))
    ]
    basis = Basis(("Ge", "Si"), bond.bonds, tuple(functions))
    atoms = Atoms("SiGeSiGe", positions=rng.uniform(0, 2.5, (4, 3)))
    expected = naive(basis, atoms)
    np.testing.assert_allclose(basis.values(atoms), expected, atol=1e-9 * np.abs(expected).max())
    block, h = basis.design_block(atoms), 1e-5
    for atom, axis in ((0, 0), (2, 1)):
        energies = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            energies.append(basis.values(moved).sum(axis=0))
        numeric = -(energies[0] - energies[1]) / (2 * h)
        np.testing.assert_allclose(
            block.force_rows[3 * atom + axis], numeric, atol=1e-6 * np.abs(block.force_rows).max()
        )


def test_pairs_with_different_inner_cutoffs(ternary):
    bonds = dict(ternary.basis.bonds)
    radial = replace(bonds[0, 1].radial, inner_type="zbl")
    bonds[0, 1] = replace(bonds[0, 1], radial=radial)
    with pytest.raises(PotentialFileError, match=r"inner_cutoff_type differs .*distance, zbl"):
        Basis(ternary.basis.elements, bonds, ternary.basis.functions)


def test_radial_functions_that_overflow(ternary):
    bonds = {
        pair: replace(bond, radial=replace(bond.radial, lambda_=-1000.0))
        for pair, bond in ternary.basis.bonds.items()
    }
    basis = Basis(ternary.basis.elements, bonds, ternary.basis.functions)
    with pytest.raises(
        PotentialFileError, match=r"Ge and Ge are not finite; radparameters \[-1000"
    ):
        basis.values(Atoms("Si"))


def test_huge_tables(ternary):
    bonds = {
        pair: replace(bond, radial=replace(bond.radial, cutoff=99.0))
        for pair, bond in ternary.basis.bonds.items()
    }
    basis = Basis(ternary.basis.elements, bonds, ternary.basis.functions, 1e-5)
    with pytest.raises(PotentialFileError, match="use a larger deltaSplineBins"):
        basis.values(Atoms("Si"))


def test_couplings_of_one_product_are_ordered_by_their_number_of_terms():
    factors = ((0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1))
    functions = [coupled_function(0, factors, (a, a)) for a in (2, 0, 1)]
    ordered = [functions[k] for k in column_order(functions)]
    assert [f.lint[0] for f in ordered] == [0, 1, 2]
    assert [len(f.terms) for f in ordered] == [5, 6, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": ()}, "one or more"),
        ({"elements": ("Si", "Si")}, "each once"),
        ({"elements": ("Sj",)}, "'Sj' is not a chemical element"),
        ({"cutoff": -1.0}, "cutoff = -1.0"),
        ({"cutoff": float("nan")}, "cutoff"),
        ({"max_rank": 6, "nradmax": (3,) * 5}, "max_rank = 6 needs as many"),
        ({"max_rank": 7}, "max_rank = 7: ranks 1 to 6"),
        ({"max_functions": 0}, "max_functions = 0"),
        ({"l_weight": 0.0}, "l_weight"),
        ({"nradmax": (3, 2)}, "nradmax has 2 entries"),
        ({"lmax": (0, 2, 2, -1)}, "lmax"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        BasisSettings(**{"elements": ("Si",), **change})


def test_unknown_element(ternary):
    with pytest.raises(DataError, match="contains C, O, but the potential knows only Ge, Si"):
        ternary.basis.values(Atoms("SiCO", positions=np.eye(3)))


def test_atoms_on_one_spot(ternary):
    with pytest.raises(DataError, match="Atoms 1 and 0"):
        ternary.basis.values(Atoms("Si2", positions=np.zeros((2, 3))))


def test_pickled_basis_and_threads_give_the_same(ternary, alloy, cluster):
    basis = pickle.loads(pickle.dumps(ternary.basis))
    structures = [alloy, cluster] * 8
    expected = [ternary.basis.design_block(atoms) for atoms in structures]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(basis.design_block, structures), expected, strict=True):
            np.testing.assert_array_equal(one.force_rows, other.force_rows)


def test_basis_without_functions(ternary):
    with pytest.raises(PotentialFileError, match="no functions"):
        Basis(("Si",), ternary.basis.bonds, ())
