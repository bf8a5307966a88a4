"""Normal modes and thermal amplitudes, next to measured values and to equipartition."""

import json

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import mean_square, spring_constant, thermal_amplitude
from aiida_autopipe.core.generate.force_constants import (
    measured_force_constants,
    normal_modes_of,
    spring_force_constants,
    thermal_displacements,
)
from aiida_autopipe.core.generate.modes import normal_modes
from tests.core.generate.crystals import CRYSTALS, quartz


# Debye-Waller factors B = 8 pi^2 <u^2> near 300 K in Å^2, of X-ray and neutron diffraction.
@pytest.mark.parametrize(("name", "b"), [("Al", 0.86), ("Fe", 0.34), ("Si", 0.46)])
def test_amplitudes_are_near_those_of_diffraction(name, b):
    measured = np.sqrt(b / (8 * np.pi**2))
    assert thermal_amplitude(CRYSTALS[name], 295.0) == pytest.approx(measured, rel=0.2)


def test_amplitudes_have_both_limits():
    spring, mass = spring_constant(bulk("Al")), 26.98
    assert mean_square(spring, mass, 5000.0) == pytest.approx(units.kB * 5000 / spring, rel=0.01)
    assert (
        0
        < mean_square(spring, mass, 0.0)
        == pytest.approx(mean_square(spring, mass, 1.0), rel=1e-3)
    )
    with pytest.raises(InputError, match="below absolute zero"):
        mean_square(spring, mass, -1.0)
    with pytest.raises(InputError, match="No Debye temperature is known"):
        thermal_amplitude(bulk("Po", "sc", a=3.35), 300.0)


@pytest.mark.parametrize("name", ["Al", "Fe", "Si", "NaCl", "quartz"])
def test_spring_modes_are_orthonormal_stable_and_without_rigid_motion(name):
    crystal = CRYSTALS[name]
    supercell = crystal.repeat(2)
    constants = spring_force_constants(supercell, spring_constant(crystal))
    modes = normal_modes_of(constants, supercell.get_masses())
    flat = modes.vectors.reshape(len(modes.energies), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-9)
    assert len(flat) == 3 * len(supercell) - 3
    assert modes.unstable == 0
    roots = np.sqrt(supercell.get_masses())
    np.testing.assert_allclose(np.einsum("mnx,n->mx", modes.vectors, roots), 0.0, atol=1e-6)


def test_measured_modes_of_aluminium():
    """Frequencies of EMT, and a potential energy of kT/2 for each mode in real EMT energies."""
    crystal = bulk("Al", a=3.995)
    supercell = crystal.repeat(3)
    constants = measured_force_constants(crystal, (3, 3, 3), EMT())
    modes = normal_modes_of(constants, supercell.get_masses())
    # The band of aluminium ends near 10 THz in nature, 7.4 THz in EMT.
    assert 6.5 < modes.energies.max() / (units._hplanck * units.J) * 1e-12 < 8.5
    supercell.calc = EMT()
    rest = supercell.get_potential_energy()
    energies = []
    for atoms in normal_modes(
        crystal, np.random.default_rng(1), repeat=(3, 3, 3), temperatures_K=[300.0], copies=12,
        calculator=EMT(),
    ):  # fmt: skip
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy() - rest)
    half = 0.5 * units.kB * 300.0 * len(modes.energies)
    assert np.mean(energies) == pytest.approx(half, rel=0.2)


def test_variance_of_displacements_is_that_of_the_ensemble():
    supercell = bulk("Al").repeat(2)
    constants = spring_force_constants(supercell, 3.0)
    masses = supercell.get_masses()
    modes = normal_modes_of(constants, masses)
    rng = np.random.default_rng(0)
    drawn = [thermal_displacements(modes, masses, 1000.0, rng) for _ in range(400)]
    # Classical: <u_i u_j> = kT times the inverse of the force constants.
    expected = units.kB * 1000.0 * np.trace(np.linalg.pinv(constants, rcond=1e-8))
    assert np.mean([np.sum(u**2) for u in drawn]) == pytest.approx(expected, rel=0.05)


def test_records_seed_and_bad_settings():
    options = {"repeat": (1, 1, 1), "copies": 1, "temperatures_K": [300.0]}
    first, again, other = (
        normal_modes(quartz(), np.random.default_rng(seed), **options)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.positions, again.positions)
    assert not np.allclose(first.positions, other.positions)
    facts = json.loads(first.info["parameters"])
    assert (facts["temperature_K"], facts["force_constants"]) == (300.0, "springs")
    with pytest.raises(InputError, match="below absolute zero"):
        normal_modes(bulk("Si"), np.random.default_rng(0), temperatures_K=[-5.0])
    with pytest.raises(InputError, match="no normal modes"):
        normal_modes(bulk("Al"), np.random.default_rng(0), repeat=(1, 1, 1))
