import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from scipy.linalg import qr

from aiida_autopipe.core.ace.basis import Basis, build_basis
from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.ace.embedding import FINNIS_SINCLAIR, Embedding
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.radial import core_repulsion
from aiida_autopipe.core.errors import DataError, InputError, PotentialFileError
from tests.reference import ace_naive

# LAMMPS metal units: bar per eV/Å^3, the rounded constant LAMMPS itself uses.
BAR = 1.6021765e6
FILES = {"yaml": "extrapolation", "yace": "extrapolation", "lonely yace": "product"}


@pytest.fixture(scope="module", params=FILES)
def loaded(request, sic_files, tmp_path_factory):
    """The reference potential read from each kind of file, and the LAMMPS style to compare with."""
    path = sic_files / f"SiC_linear.{request.param.split()[-1]}"
    if request.param == "lonely yace":
        alone = tmp_path_factory.mktemp("alone") / path.name
        alone.write_bytes(path.read_bytes())
        path = alone
    return ACEPotential.load(path), FILES[request.param]


def test_reproduces_ml_pace(loaded, sic_reference):
    potential, style = loaded
    assert potential.elements == ["C", "Si"]
    for atoms, results in sic_reference:
        expected = results[style]
        ours = potential.evaluate(atoms, gamma=style == "extrapolation")
        forces, gamma = np.array(expected["forces"]), np.array(expected.get("gamma", [0.0]))
        stress = -np.array(expected["stress_bar"]) / BAR
        assert ours.energy == pytest.approx(expected["energy"], rel=1e-8)
        np.testing.assert_allclose(ours.energies, expected["energies"], rtol=2e-8)
        assert np.abs(ours.forces - forces).max() < 1e-6 * np.abs(forces).max()
        assert np.abs(ours.stress - stress).max() < 1e-8 * np.abs(stress).max()
        if style == "extrapolation":
            assert np.abs(ours.gamma - gamma).max() < 1e-6 * gamma.max()


def test_energy_is_values_times_coefficients(ternary, alloy):
    result = ternary.evaluate(alloy)
    references = np.array([ternary.reference_energies[s] for s in alloy.symbols])
    coefficients = ternary.coefficients[:, 0]
    expected = ternary.descriptors(alloy) @ coefficients + references
    np.testing.assert_allclose(result.energies, expected, rtol=1e-12)
    assert result.energy == pytest.approx(expected.sum())
    block = ternary.basis.design_block(alloy)
    forces = (block.force_rows @ coefficients).reshape(-1, 3)
    np.testing.assert_allclose(result.forces, forces, atol=1e-11 * np.abs(forces).max())
    stress = block.virial_rows @ coefficients / alloy.get_volume()
    np.testing.assert_allclose(result.stress, stress, atol=1e-11 * np.abs(stress).max())


def test_forces_and_stress_by_finite_differences(ternary, alloy):
    alloy.calc = ACECalculator(ternary)
    forces, stress = alloy.get_forces(), alloy.get_stress()
    numeric = calculate_numerical_forces(alloy, eps=1e-5)
    np.testing.assert_allclose(forces, numeric, atol=1e-6 * np.abs(forces).max())
    numeric = calculate_numerical_stress(alloy, eps=1e-5)
    np.testing.assert_allclose(stress, numeric, atol=1e-6 * np.abs(stress).max())


def naive_energies(potential, atoms):
    """Energies of the atoms by the definition, from the parts in `ace_naive`."""
    basis = potential.basis
    types = basis.types(atoms)
    spec = basis.bonds[0, 0].radial
    inner, width = spec.inner_cutoff, spec.inner_width

    def keep(r):
        return 1 - ace_naive.step(r, inner, width) if spec.inner_type == "distance" else 1.0

    values = ace_naive.b_values(
        atoms, types, basis.functions, spec.cutoff, spec.lambda_, spec.outer_width, keep
    )
    energies = []
    for i, around in enumerate(ace_naive.neighbours(atoms, spec.cutoff)):
        embedding = potential.embeddings[basis.elements[types[i]]]
        densities = values[i] @ potential.coefficients[:, : embedding.n_densities]
        energy = ace_naive.atom_energy(
            densities, embedding.weights, embedding.exponents, embedding.npoti
        )
        distances = [np.linalg.norm(v) for _, v in around]
        prefactor, exponent = spec.core_repulsion
        if spec.inner_type == "zbl":
            z = atoms.numbers
            core = prefactor * sum(
                ace_naive.zbl(r, z[i], z[j], spec.cutoff, spec.outer_width)
                for r, (j, _) in zip(distances, around, strict=True)
            )
            off = ace_naive.step(min(distances, default=9.0), inner, width)
            energies.append((1 - off) * energy + off * core)
            continue
        core = sum(
            ace_naive.core_repulsion(r, prefactor, exponent, spec.cutoff)
            * (ace_naive.step(r, inner, width) if spec.inner_type == "distance" else 1.0)
            for r in distances
        )
        on = ace_naive.step(core, embedding.rho_core_cutoff, embedding.drho_core_cutoff)
        energies.append(on * energy + core)
    return np.array(energies)


def embedded_potential(inner_type):
    """Two elements, one and three densities, with core repulsion and the inner cutoff given."""
    basis = build_basis(
        BasisSettings(
            ("Si", "Ge"),
            cutoff=3.3,
            max_functions=90,
            nradmax=(4, 3, 2, 2),
            lmax=(0, 2, 2, 1),
            outer_width=0.8,
            inner_cutoff=2.0,
            inner_width=0.7,
        )
    )
    prefactor = 0.6 if inner_type == "zbl" else 30.0
    bonds = {
        pair: dataclasses.replace(
            bond,
            radial=dataclasses.replace(
                bond.radial, inner_type=inner_type, core_repulsion=(prefactor, 0.5)
            ),
        )
        for pair, bond in basis.bonds.items()
    }
    embeddings = {
        "Ge": Embedding((0.7, 0.5, 1.0, 1.0, -0.4, 1.5), FINNIS_SINCLAIR, 14.0, 12.0),
        "Si": Embedding((1.0, 0.8), rho_core_cutoff=9.0, drho_core_cutoff=8.0),
    }
    coefficients = np.random.default_rng(5).normal(size=(180, 3)) * 6.0 ** -basis.ranks[:, None]
    coefficients[90:, 1:] = 0.0
    return ACEPotential(
        dataclasses.replace(basis, bonds=bonds), coefficients, {"Si": -5.0}, None, embeddings
    )


@pytest.fixture(params=["distance", "density", "zbl"])
def embedded(request):
    return embedded_potential(request.param)


@pytest.mark.parametrize("structure", ["alloy", "cluster"])
def test_embedded_energies_against_the_definition(embedded, structure, request):
    atoms = request.getfixturevalue(structure)
    atoms.set_cell(0.85 * atoms.cell, scale_atoms=False)
    atoms.positions *= 0.85
    references = np.array([embedded.reference_energies.get(s, 0.0) for s in atoms.symbols])
    found = embedded.evaluate(atoms).energies - references
    expected = naive_energies(embedded, atoms)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)
    far = naive_energies(embedded_potential("density"), atoms)
    if embedded.basis.bonds[0, 0].radial.inner_type != "density":
        assert (np.abs(far - found) > 1e-2).sum() >= 3


def test_embedded_forces_and_stress_by_finite_differences(embedded, alloy):
    alloy.calc = ACECalculator(embedded)
    forces, stress = alloy.get_forces(), alloy.get_stress()
    numeric = calculate_numerical_forces(alloy, eps=1e-5)
    np.testing.assert_allclose(forces, numeric, atol=1e-6 * np.abs(forces).max())
    numeric = calculate_numerical_stress(alloy, eps=1e-5)
    np.testing.assert_allclose(stress, numeric, atol=1e-6 * np.abs(stress).max())


def test_core_repulsion_takes_over_at_short_distance(embedded):
    """Close to another atom only the core repulsion is left, and it is finite down to contact."""
    energies = []
    for distance in (0.4, 0.1, 1e-2, 1e-3, 2e-4):
        pair = Atoms("Si2", positions=[[0, 0, 0], [distance, 0, 0]])
        energies.append(embedded.evaluate(pair).energy)
    assert np.isfinite(energies).all()
    assert (np.diff(energies) > 0).all()
    spec = embedded.basis.bonds[1, 1].radial
    core, _ = core_repulsion(spec, np.array([0.4]), (14, 14))
    assert energies[0] == pytest.approx(2 * core[0] - 10.0, rel=1e-9)


def test_density_cutoff_without_core_repulsion(ternary, alloy):
    """A step that reaches below zero scales every energy, core repulsion or not."""
    half = Embedding(rho_core_cutoff=1.0, drho_core_cutoff=2.0)
    off = Embedding(rho_core_cutoff=0.0, drho_core_cutoff=0.0)
    potential = dataclasses.replace(ternary, embeddings={"Si": half, "Ge": off})
    expected = ternary.evaluate(alloy).energies
    found = potential.evaluate(alloy).energies
    si = np.array(alloy.symbols) == "Si"
    np.testing.assert_allclose(found[si] + 5.0, (expected[si] + 5.0) / 2, rtol=1e-12)
    np.testing.assert_array_equal(found[~si], -4.0)


def test_linear_densities_are_one(ternary, alloy):
    """With all exponents 1 densities and weights only share out the coefficients."""
    embeddings = {
        "Si": Embedding((2.0, 1.0, -1.0, 1.0)),
        "Ge": Embedding((1.0, 1.0), "FinnisSinclair"),
    }
    rng = np.random.default_rng(2)
    coefficients = np.hstack([ternary.coefficients, rng.normal(size=ternary.coefficients.shape)])
    coefficients[:400, 1] = 0.0
    potential = dataclasses.replace(ternary, coefficients=coefficients, embeddings=embeddings)
    summed = np.where(np.arange(800) < 400, coefficients[:, 0], coefficients @ [2.0, -1.0])
    one = dataclasses.replace(ternary, coefficients=summed)
    expected, found = one.evaluate(alloy), potential.evaluate(alloy)
    np.testing.assert_allclose(found.energies, expected.energies, rtol=1e-11)
    np.testing.assert_allclose(
        found.forces, expected.forces, atol=1e-11 * np.abs(expected.forces).max()
    )


def test_embedded_pairs_with_ghost_atoms(embedded, alloy):
    expected = embedded.evaluate(alloy)
    centre, neighbour, vectors = full_neighbour_list(alloy, embedded.cutoff + 0.5)
    types = embedded.basis.types(alloy)
    ghost = np.arange(len(alloy), len(alloy) + len(centre))
    result = embedded.evaluate_pairs(
        np.concatenate([types, types[neighbour]]), centre, ghost, vectors, len(alloy)
    )
    references = np.array([embedded.reference_energies.get(s, 0.0) for s in alloy.symbols])
    np.testing.assert_allclose(result.energies + references, expected.energies, rtol=1e-11)
    np.testing.assert_allclose(result.virial / alloy.get_volume(), expected.stress, atol=1e-10)


def test_non_linear_gamma_against_its_definition(embedded, alloy, rng):
    """Rows dE/drho_p B, p outer."""
    inverse = {"Ge": rng.normal(size=(270, 270)), "Si": rng.normal(size=(90, 90))}
    with pytest.raises(PotentialFileError, match="of Si is linear, that of Ge is not"):
        dataclasses.replace(embedded, inverse_active_set=inverse)
    embeddings = {**embedded.embeddings, "Si": Embedding((1.0, 0.8, 0.5, 0.4))}
    inverse["Si"] = rng.normal(size=(180, 180))
    coefficients = embedded.coefficients.copy()
    coefficients[90:, 1] = coefficients[90:, 0][::-1]
    potential = dataclasses.replace(
        embedded,
        coefficients=coefficients,
        embeddings=embeddings,
        inverse_active_set=inverse,
    )
    found = potential.evaluate(alloy, gamma=True).gamma
    values = potential.descriptors(alloy)
    for i, element in enumerate(alloy.symbols):
        columns = potential.basis.columns(element)
        rho = values[i, columns] @ potential.coefficients[columns]
        embedding = embeddings[element]
        rho = rho[: embedding.n_densities]
        slopes = [
            (
                ace_naive.embedding(x * (1 + 1e-6), m, embedding.npoti)
                - ace_naive.embedding(x * (1 - 1e-6), m, embedding.npoti)
            )
            / (2e-6 * x)
            for x, m in zip(rho, embedding.exponents, strict=True)
        ]
        row = np.concatenate(
            [w * d * values[i, columns] for w, d in zip(embedding.weights, slopes, strict=True)]
        )
        assert found[i] == pytest.approx(np.abs(row @ inverse[element]).max(), rel=1e-6)


def test_energy_is_smooth_at_the_cutoff(ternary):
    """Energy and force of an atom that leaves go to zero with the distance to the cutoff."""

    def dimer(distance):
        return ternary.evaluate(Atoms("Si2", positions=[[0, 0, 0], [distance, 0, 0]]))

    cutoff = ternary.cutoff
    far = dimer(cutoff + 1e-9)
    for gap in (1e-3, 1e-4, 1e-5):
        near = dimer(cutoff - gap)
        assert abs(near.energy - far.energy) < 10 * gap**2
        assert np.abs(near.forces).max() < 100 * gap
    assert far.energy == 2 * ternary.reference_energies["Si"]
    assert not far.forces.any()


def test_isolated_atom_has_its_reference_energy(ternary):
    result = ternary.evaluate(Atoms("Ge"))
    assert result.energy == -4.0
    assert result.stress is None


def test_pairs_with_ghost_atoms(ternary, alloy):
    """Periodic images as ghosts, as LAMMPS holds them: same energies and folded forces."""
    expected = ternary.evaluate(alloy)
    centre, neighbour, vectors = full_neighbour_list(alloy, ternary.cutoff + 0.5)
    n = len(alloy)
    types = ternary.basis.types(alloy)
    ghost = np.arange(n, n + len(centre))
    everything = np.concatenate([types, types[neighbour]])
    result = ternary.evaluate_pairs(
        everything.astype(np.int32), centre.astype(np.int32), ghost, vectors, n
    )
    references = np.array([ternary.reference_energies[s] for s in alloy.symbols])
    np.testing.assert_allclose(result.energies + references, expected.energies, rtol=1e-12)
    folded = result.forces[:n].copy()
    np.add.at(folded, neighbour, result.forces[n:])
    np.testing.assert_allclose(folded, expected.forces, atol=1e-10)
    np.testing.assert_allclose(result.virial / alloy.get_volume(), expected.stress, atol=1e-12)
    assert result.gamma is None


def test_pairs_in_any_order(ternary, alloy, rng):
    centre, neighbour, vectors = full_neighbour_list(alloy, ternary.cutoff)
    order = rng.permutation(len(centre))
    types = ternary.basis.types(alloy)
    first = ternary.evaluate_pairs(types, centre, neighbour, vectors, len(alloy))
    second = ternary.evaluate_pairs(
        types, centre[order], neighbour[order], vectors[order], len(alloy)
    )
    np.testing.assert_allclose(first.forces, second.forces, atol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": [0, 7]}, "types must be indices from 0 to 1"),
        ({"centre": [2]}, "centre"),
        ({"neighbour": [-1]}, "neighbour"),
        ({"vectors": [[1, 0, 0], [0, 1, 0]]}, "one entry per pair"),
        ({"vectors": [[np.nan, 0, 0]]}, "atoms 0 and 1 is not finite"),
    ],
)
def test_pairs_out_of_range(ternary, change, message):
    arguments = {"types": [0, 1], "centre": [0], "neighbour": [1], "vectors": [[2.0, 0, 0]]}
    arguments = {key: np.array(value) for key, value in {**arguments, **change}.items()}
    with pytest.raises(DataError, match=message):
        ternary.evaluate_pairs(**arguments, n_atoms=2)


@pytest.fixture(scope="module")
def with_active_set(ternary):
    """The potential with a square active set of random environments: the potential, the structures,
    and per element the active rows with the (structure, atom) each comes from."""
    rng = np.random.default_rng(3)
    basis, active = ternary.basis, {}
    structures = [
        Atoms(rng.choice(["Si", "Ge"], 12), positions=rng.uniform(0, 4.5, (12, 3)))
        for _ in range(120)
    ]
    values = np.concatenate([basis.values(atoms) for atoms in structures])
    symbols = np.concatenate([atoms.symbols for atoms in structures])
    for element in basis.elements:
        where = np.flatnonzero(symbols == element)
        rows = values[where][:, basis.columns(element)]
        _, pivots = qr(rows.T, mode="r", pivoting=True)
        chosen = pivots[: rows.shape[1]]
        active[element] = (rows[chosen], [divmod(int(k), 12) for k in where[chosen]])
    inverse = {element: np.linalg.inv(rows) for element, (rows, _) in active.items()}
    potential = ACEPotential(basis, ternary.coefficients, ternary.reference_energies, inverse)
    return potential, structures, active


def test_members_of_the_active_set_have_gamma_one(with_active_set):
    potential, structures, active = with_active_set
    gamma = [potential.evaluate(atoms, gamma=True).gamma for atoms in structures]
    for _, places in active.values():
        np.testing.assert_allclose([gamma[s][a] for s, a in places], 1.0, atol=1e-6)


def test_gamma_against_its_definition(with_active_set, alloy):
    potential, _, active = with_active_set
    gamma = potential.evaluate(alloy, gamma=True).gamma
    values = potential.descriptors(alloy)
    for element, (rows, _) in active.items():
        mine = alloy.symbols == element
        expected = ace_naive.gamma(values[mine][:, potential.basis.columns(element)], rows)
        np.testing.assert_allclose(gamma[mine], expected, rtol=1e-6)


def test_gamma_without_active_set(ternary, alloy):
    with pytest.raises(InputError, match="no active set"):
        ternary.evaluate(alloy, gamma=True)
    one = dataclasses.replace(ternary, inverse_active_set={"Ge": np.eye(400)})
    with pytest.raises(InputError, match="no active set for Si"):
        one.evaluate(alloy, gamma=True)


def test_calculator(with_active_set, alloy, cluster):
    potential = with_active_set[0]
    alloy.calc = ACECalculator(potential)
    expected = potential.evaluate(alloy, gamma=True)
    assert alloy.get_potential_energy() == expected.energy
    assert alloy.get_potential_energy(force_consistent=True) == expected.energy
    np.testing.assert_array_equal(alloy.get_forces(), expected.forces)
    np.testing.assert_array_equal(alloy.get_potential_energies(), expected.energies)
    np.testing.assert_array_equal(alloy.calc.results["gamma"], expected.gamma)
    assert alloy.get_stress().shape == (6,)
    calculator = ACECalculator(potential, gamma=False)
    cluster.calc = calculator
    assert np.isfinite(cluster.get_potential_energy())
    assert "gamma" not in calculator.results
    assert "stress" not in calculator.results


@pytest.mark.parametrize("shape", [3, (2, 2), (800, 2), (800, 1, 1)])
def test_shapes_must_fit(ternary, shape):
    basis = ternary.basis
    with pytest.raises(PotentialFileError, match="fit 800 functions and 1 densities"):
        ACEPotential(basis, np.ones(shape))
    two = {"Si": Embedding((1.0, 1.0, 1.0, 0.5))}
    with pytest.raises(PotentialFileError, match="800 functions and 2 densities"):
        ACEPotential(basis, ternary.coefficients, embeddings=two)
    with pytest.raises(PotentialFileError, match="Ge has 1 densities, but coefficients for more"):
        ACEPotential(basis, np.ones((800, 2)), embeddings=two)
    with pytest.raises(PotentialFileError, match="Embedding of Al"):
        ACEPotential(basis, ternary.coefficients, embeddings={"Al": Embedding()})
    with pytest.raises(PotentialFileError, match="active set of Si"):
        ACEPotential(basis, ternary.coefficients, {}, {"Si": np.eye(3)})
    with pytest.raises(PotentialFileError, match="finite"):
        ACEPotential(basis, np.full(basis.n_functions, np.nan))


def test_element_without_functions(ternary):
    """An element may have no functions at all: energy zero, gamma zero, no failure."""
    basis = Basis(("Ge", "Si"), ternary.basis.bonds, ternary.basis.functions[400:])
    potential = ACEPotential(
        basis, ternary.coefficients[400:], {}, {"Si": np.eye(400), "Ge": np.zeros((0, 0))}
    )
    result = potential.evaluate(bulk("Ge"), gamma=True)
    assert result.energy == 0
    assert not result.gamma.any()
