"""The core repulsion against LAMMPS' own `pair_style zbl`, finite differences and its promises."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from aiida_autopipe.core.ace.kernels import SortedPairs, sort_pairs
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.zbl import ZBL, default_zbl
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.engines.lammps.library import execute, open_lammps

# Bar in an eV/Å^3, with the digits of LAMMPS.
BAR = 1.6021765e6


def lammps_zbl(atoms: Atoms, zbl: ZBL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, forces and stress of a lower triangular cell from the real `pair_style zbl`."""
    elements = sorted(set(atoms.symbols))
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array
    lammps = open_lammps(["-screen", "none", "-log", "none"])
    for command in (
        "units metal",
        "atom_modify map array sort 0 0",
        "box tilt large",
        f"region box prism 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g} {xy:.17g} {xz:.17g} {yz:.17g}",
        f"create_box {len(elements)} box",
    ):
        execute(lammps, command)
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols]
    lammps.create_atoms(
        len(atoms), list(range(1, len(atoms) + 1)), types, atoms.positions.ravel().tolist()
    )
    for command in (
        "mass * 1.0",
        f"pair_style zbl {zbl.inner!r} {zbl.outer!r}",
        *(
            f"pair_coeff {elements.index(a) + 1} {elements.index(b) + 1} "
            f"{atomic_numbers[a]} {atomic_numbers[b]}"
            for a, b in combinations_with_replacement(elements, 2)
        ),
        "compute energies all pe/atom",
        "compute virial all pressure NULL virial",
        "thermo_style custom step pe c_virial[*]",
        "run 0",
    ):
        execute(lammps, command)
    n = len(atoms)
    order = np.argsort(lammps.numpy.extract_atom("id")[:n])
    energies = lammps.numpy.extract_compute("energies", 1, 1)[:n][order].copy()
    forces = lammps.numpy.extract_atom("f")[:n][order].copy()
    pressure = lammps.numpy.extract_compute("virial", 0, 1).copy()
    lammps.close()
    return energies, forces, -pressure[[0, 1, 2, 5, 4, 3]] / BAR


def assert_same_as_lammps(atoms: Atoms, zbl: ZBL) -> None:
    ours, volume = zbl.evaluate(atoms), atoms.cell.volume
    expected = (ours.energies, ours.forces, ours.virial / volume)
    for name, mine, theirs in zip(
        ("energies", "forces", "stress"), expected, lammps_zbl(atoms, zbl), strict=True
    ):
        # The absolute part is the rounding of terms that cancel at the outer cut-off.
        atol = 1e-13 * max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=atol, err_msg=name)


@pytest.mark.parametrize("pair", ["SiSi", "CSi", "HW"])
def test_a_pair_at_every_distance(pair: str) -> None:
    zbl = ZBL(0.9, 1.85)
    for distance in (0.2, 0.35, 0.6, 0.8999, 0.9, 0.9001, 1.2, 1.6, 1.84, 1.8499):
        direction = np.array([0.6, -0.48, 0.64])
        atoms = Atoms(pair, [[4.0, 4.0, 4.0], 4.0 + distance * direction], pbc=True)
        atoms.set_cell([[8.0, 0, 0], [1.0, 8.5, 0], [-0.5, 2.0, 9.0]])
        assert_same_as_lammps(atoms, zbl)


def dense_alloy(seed: int) -> Atoms:
    """24 atoms from 0.2 Å apart, in a skewed cell, some pairs through its faces."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("CSi", [[0.1, 0, 0], [-0.1, 0.1, 0]], pbc=True)
    atoms.set_cell([[4.1, 0, 0], [0.7, 3.9, 0], [-0.6, 0.5, 4.3]])
    while len(atoms) < 24:
        more = atoms + Atoms("C" if rng.random() < 0.5 else "Si", rng.random((1, 3)) @ atoms.cell)
        if not len(full_neighbour_list(more, 0.2).centre):
            atoms = more
    return atoms


@pytest.mark.parametrize("seed", range(3))
def test_a_dense_alloy_of_two_elements(seed: int) -> None:
    atoms = dense_alloy(seed)
    assert set(atoms.symbols) == {"C", "Si"}
    assert_same_as_lammps(atoms, ZBL(0.7, 2.3))
    assert len(full_neighbour_list(atoms, 0.25).centre) >= 2


def test_cell_smaller_than_the_cutoff() -> None:
    atoms = bulk("Cu", "sc", a=1.3)
    assert_same_as_lammps(atoms * (2, 1, 1), ZBL(1.0, 3.0))


def test_forces_and_virial_are_derivatives_of_the_energy() -> None:
    zbl, atoms, step = ZBL(0.7, 2.3), dense_alloy(4), 1e-5

    def energy(moved: Atoms) -> float:
        return float(zbl.evaluate(moved).energies.sum())

    found = zbl.evaluate(atoms)
    for index in (0, 7, 13):
        for axis in range(3):
            values = []
            for sign in (-1, 1):
                moved = atoms.copy()
                moved.positions[index, axis] += sign * step
                values.append(energy(moved))
            numerical = -(values[1] - values[0]) / (2 * step)
            assert found.forces[index, axis] == pytest.approx(numerical, rel=1e-5, abs=1e-5)
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        values = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            values.append(energy(strained))
        numerical = (values[1] - values[0]) / (2 * step)
        assert found.virial[voigt] == pytest.approx(numerical, rel=1e-6)


def _second_difference_of_the_force(zbl: ZBL, edge: float, step: float) -> float:
    around = edge + step * np.arange(-3, 4)
    pairs = [Atoms("Cu2", [[0, 0, 0], [r, 0, 0]]) for r in around]
    force = np.array([zbl.evaluate(pair).forces[1, 0] for pair in pairs])
    return float(np.abs(np.diff(force, 2)).max())


def test_repulsive_everywhere_and_smooth_at_both_cutoffs() -> None:
    for zbl in (ZBL(0.1, 2.0), ZBL(0.9, 1.8), ZBL(1.7, 1.8)):
        distances = np.linspace(0.05, zbl.outer - 1e-3, 400)
        scan = [zbl.evaluate(Atoms("Cu2", [[0, 0, 0], [r, 0, 0]])) for r in distances]
        energy = np.array([found.energies.sum() for found in scan])
        assert (np.diff(energy) < 0).all() and energy[-1] > 0
        assert all(found.forces[1, 0] > 0 for found in scan)
    zbl = ZBL(0.9, 1.8)
    for edge in (zbl.inner, zbl.outer):
        # A jump of the curvature would show in proportion to the step, not to its square.
        wide, narrow = (_second_difference_of_the_force(zbl, edge, h) for h in (1e-3, 1e-4))
        assert narrow < wide / 50
    beyond = zbl.evaluate(Atoms("Cu2", [[0, 0, 0], [1.8, 0, 0]]))
    assert not beyond.energies.any() and not beyond.forces.any() and not beyond.virial.any()


def test_ghosts_and_longer_pairs_of_a_foreign_list() -> None:
    """The list may reach further than the repulsion and its neighbours may be ghosts."""
    zbl, atoms = ZBL(0.7, 1.5), dense_alloy(5)
    centre, neighbour, vectors = full_neighbour_list(atoms, 2.5)
    n, types = len(atoms), (atoms.numbers == 14).astype(np.int64)
    ghosts = n + np.arange(len(centre))
    all_types = np.concatenate([types, types[neighbour]])
    pairs = SortedPairs(*sort_pairs(all_types, centre, ghosts, vectors, n, np.full(4, 2.5)))
    found, expected = zbl.evaluate_sorted(all_types, [6, 14], pairs, n), zbl.evaluate(atoms)
    folded = found.forces[:n].copy()
    np.add.at(folded, neighbour, found.forces[n:])
    np.testing.assert_allclose(found.energies, expected.energies, rtol=1e-12)
    np.testing.assert_allclose(folded, expected.forces, atol=1e-9)
    np.testing.assert_allclose(found.virial, expected.virial, rtol=1e-10)


def test_default_cutoffs_leave_bonds_alone() -> None:
    """Bond lengths in Å, molecules and crystals; no pair of either may be repelled."""
    bonds = {
        ("N", "N"): 1.10,
        ("C", "O"): 1.13,
        ("H", "H"): 0.74,
        ("C", "N"): 1.16,
        ("O", "O"): 1.21,
        ("O", "V"): 1.57,
        ("Si", "Si"): 2.35,
        ("Cu", "Cu"): 2.55,
        ("Li", "Li"): 3.02,
    }
    for pair, length in bonds.items():
        zbl = default_zbl(sorted(set(pair)))
        assert 0 < zbl.inner < zbl.outer < length
        assert zbl.outer > 0.25 * length
    sums = 2 * covalent_radii[atomic_numbers["Cu"]]
    assert default_zbl(["Cu"]).outer == pytest.approx(0.7 * sums, abs=0.01)


def test_default_cutoffs_from_data() -> None:
    assert default_zbl(["Si"], {("Si", "Si"): 1.634}).outer == 1.63
    assert default_zbl(["Si"], {("Si", "Si"): 1.634}).inner == 0.815
    capped = 0.8 * 2 * covalent_radii[14]
    assert default_zbl(["Si"], {("Si", "Si"): 3.0}).outer == pytest.approx(capped, abs=0.01)
    # One pair of the two, in either order, decides for all.
    for key in (("C", "Si"), ("Si", "C")):
        assert default_zbl(["Si", "C"], {key: 0.9}).outer == 0.9
    assert default_zbl(["Cu"], {}).outer == pytest.approx(0.8 * 2 * covalent_radii[29], abs=0.01)


@pytest.mark.parametrize(
    ("elements", "distances", "message"),
    [
        (["Xx"], None, "'Xx' is not a chemical element"),
        ([], None, "at least one element"),
        (["Si"], {("Si", "Si"): 0.0}, "shortest distance of Si and Si is 0.0 Å"),
        (["Si"], {("Si", "Si"): float("nan")}, "must be positive"),
    ],
)
def test_bad_elements_or_distances(elements, distances, message) -> None:
    with pytest.raises(InputError, match=message):
        default_zbl(elements, distances)


@pytest.mark.parametrize(
    ("inner", "outer"), [(0, 1), (1, 1), (2, 1), (-1, 1), (1, np.inf), (np.nan, 1), (1, np.nan)]
)
def test_cutoffs_must_be_in_order(inner: float, outer: float) -> None:
    with pytest.raises(InputError, match="0 < inner < outer"):
        ZBL(inner, outer)


def test_two_atoms_on_one_spot_are_refused() -> None:
    with pytest.raises(DataError, match="Atoms 1 and 0 are less than"):
        ZBL(1.0, 2.0).evaluate(Atoms("Cu2", [[0, 0, 0], [0, 0, 0]]))
