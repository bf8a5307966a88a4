"""Elastic constants against energy differences, brute force over all strains, and known tensors."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.generate.strain import apply_strain
from aiida_autopipe.core.symmetry import find_symmetry
from aiida_autopipe.core.validate.elastic import (
    elastic_constants,
    elastic_structures,
    named_constant,
)
from aiida_autopipe.core.validate.eos import eos_structures, fit_eos

CUBIC = np.diag([1.0, 1.0, 1.0, 0.5, 0.5, 0.5]) + np.pad(0.4 * (1 - np.eye(3)), (0, 3))


def emt_energy(atoms: Atoms) -> float:
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def emt_stress(atoms: Atoms) -> np.ndarray:
    atoms.calc = EMT()
    return np.array(atoms.get_stress())


def strains_between(structures: list[Atoms], original: Atoms) -> np.ndarray:
    rows = []
    for s in structures:
        e = np.linalg.solve(original.cell.array, s.cell.array) - np.eye(3)
        rows.append([e[0, 0], e[1, 1], e[2, 2], 2 * e[1, 2], 2 * e[0, 2], 2 * e[0, 1]])
    return np.array(rows)


def equilibrium_copper() -> Atoms:
    structures = eos_structures(bulk("Cu", a=3.59), 7, 0.02)
    eos = fit_eos([s.get_volume() for s in structures], [emt_energy(s) for s in structures])
    return bulk("Cu", a=(4 * eos.v0) ** (1 / 3))


def hexagonal_copper() -> Atoms:
    return bulk("Cu", "hcp", a=2.54, c=4.15)


def test_cubic_crystal_needs_three_cells() -> None:
    atoms = bulk("Si")
    strains = strains_between(elastic_structures(atoms, 0.01), atoms)
    expected = np.zeros((3, 6))
    expected[0, 0], expected[1, 0], expected[2, 3] = 0.01, -0.01, 0.01
    np.testing.assert_allclose(strains, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("atoms", "n"),
    [
        (bulk("Mg"), 5),
        (Atoms("SiGe", [[0, 0, 0], [1.1, 0.9, 1.3]], cell=[3, 4, 5, 80, 85, 95], pbc=True), 12),
    ],
)
def test_lower_symmetry_needs_more_cells(atoms: Atoms, n: int) -> None:
    assert len(elastic_structures(atoms)) == n


def test_copper_agrees_with_energy_differences() -> None:
    """C = (d2E/de2) / V at zero pressure: no stress, no symmetry enters this side."""
    atoms = equilibrium_copper()
    structures = elastic_structures(atoms, 0.002)
    stiffness = elastic_constants(
        strains_between(structures, atoms),
        [emt_stress(s) for s in structures],
        rotations=find_symmetry(atoms).rotations,
    )
    h, rest = 0.004, emt_energy(atoms.copy())

    def curvature(direction: list[float]) -> float:
        up, down = (emt_energy(apply_strain(atoms, s * h * np.array(direction))) for s in (1, -1))
        return float((up - 2 * rest + down) / h**2 / atoms.get_volume())

    c11, c44 = curvature([1, 0, 0, 0, 0, 0]), curvature([0, 0, 0, 1, 0, 0])
    c12 = (curvature([1, 1, 0, 0, 0, 0]) - 2 * c11) / 2
    assert stiffness[0, 0] == pytest.approx(c11, rel=2e-3)
    assert stiffness[0, 1] == pytest.approx(c12, rel=2e-3)
    assert stiffness[3, 3] == pytest.approx(c44, rel=2e-3)
    assert named_constant(stiffness, "C11") == pytest.approx(173, abs=2)
    assert named_constant(stiffness, "C44") == pytest.approx(90, abs=2)


def test_symmetry_reduction_equals_all_strains() -> None:
    atoms = hexagonal_copper()
    rotations = find_symmetry(atoms).rotations
    few = elastic_structures(atoms, 0.001)
    reduced = elastic_constants(
        strains_between(few, atoms), [emt_stress(s) for s in few], rotations=rotations
    )
    every = np.vstack([np.eye(6), -np.eye(6)]) * 0.001
    brute = elastic_constants(every, [emt_stress(apply_strain(atoms, e)) for e in every])
    np.testing.assert_allclose(reduced, brute, atol=2e-3 * brute.max())
    c = reduced
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, rel=1e-6)  # hexagonal relation
    np.testing.assert_allclose(c[:3, 3:], 0, atol=1e-10)


def test_reference_stress_is_removed() -> None:
    rng = np.random.default_rng(0)
    strains, offset = rng.normal(size=(12, 6)) * 0.01, rng.normal(size=6)
    stresses = strains @ CUBIC + offset
    np.testing.assert_allclose(elastic_constants(strains, stresses), CUBIC, atol=1e-9)
    given = elastic_constants(strains[:6], stresses[:6], reference_stress=offset)
    np.testing.assert_allclose(given, CUBIC, atol=1e-9)


def test_missing_strains_are_noticed() -> None:
    rotations = find_symmetry(bulk("Si")).rotations
    strains = np.zeros((3, 6))
    strains[0, 0], strains[1, 0], strains[2, 3] = 0.01, -0.01, 0.01
    with pytest.raises(DataError, match="2 strains do not determine"):
        elastic_constants(strains[:2], strains[:2] @ CUBIC, rotations=rotations)
    with pytest.raises(DataError, match="not its opposite"):
        elastic_constants(
            strains[[0, 2]], strains[[0, 2]] @ CUBIC, rotations=rotations, require_pairs=True
        )
    with pytest.raises(DataError, match="finite"):
        elastic_constants(strains, strains * np.nan)
    with pytest.raises(DataError, match="0 strains"):
        elastic_constants([], [])


def test_names_and_units() -> None:
    assert named_constant(CUBIC, "C12") == pytest.approx(0.4 / units.GPa)
    with pytest.raises(InputError, match="'C17'"):
        named_constant(CUBIC, "C17")
    with pytest.raises(InputError, match=r"below 0\.1, not 0\.2"):
        elastic_structures(bulk("Si"), 0.2)
