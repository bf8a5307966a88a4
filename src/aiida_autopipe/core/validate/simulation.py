"""Short molecular dynamics with a potential, which says how it broke where it did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from aiida_autopipe.core.distances import overlaps
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.validate.settings import ValidationSettings

FUSED = 0.5
"""Atoms closer than this part of the covalent bond length have fused."""
RUNAWAY = 5.0
"""A system this many times hotter than its thermostat has blown up."""
CHECK_EVERY = 10
"""Steps between two looks at a simulation."""
FRICTION_PER_FS = 0.01


def start(
    calculator: BaseCalculator, cell: Atoms, settings: ValidationSettings, kelvin: float
) -> Atoms:
    """A supercell with velocities of a temperature and its centre of mass at rest."""
    atoms: Atoms = cell.repeat(tuple(settings.simulation_supercell))
    atoms.calc = calculator
    # Half of the kinetic energy of a perfect crystal goes into the displacements.
    thermalize_momenta(
        atoms, temperature_K=2 * kelvin, rng=np.random.default_rng([settings.seed, 0])
    )
    Stationary(atoms)
    return atoms


def thermostat(
    atoms: Atoms, settings: ValidationSettings, kelvin: float, rng: np.random.Generator
) -> Langevin:
    """Langevin dynamics at constant volume."""
    return Langevin(
        atoms,
        settings.simulation_timestep_fs * units.fs,
        temperature_K=kelvin,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,
        rng=rng,
    )


def run(
    dynamics: MolecularDynamics,
    atoms: Atoms,
    steps: int,
    hottest_K: float,
    sample: Callable[[], object],
) -> str:
    """Run, and say in words how it broke; empty when it did not.

    Args:
        dynamics: of `atoms`.
        atoms: they move.
        steps: how many.
        hottest_K: a temperature that means a runaway.
        sample: called every `CHECK_EVERY` steps, while energy and temperature are finite.
    """
    try:
        for _ in range(max(2, steps // CHECK_EVERY)):
            dynamics.run(CHECK_EVERY)
            kelvin = float(atoms.get_temperature())
            if not (np.isfinite(atoms.get_total_energy()) and np.isfinite(kelvin)):
                return "the energy was not finite any more"
            sample()
            if overlaps(atoms, FUSED):
                return f"two atoms came within {FUSED:g} of a covalent bond length"
            if kelvin > hottest_K:
                return f"the kinetic energy ran away to {kelvin:.3g} K"
    except DataError as error:
        return f"the simulation broke: {error}"
    return ""
