"""Simulations at a temperature: average stresses with their errors, and whether the ground was
known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.simulation import RUNAWAY, run, start, thermostat

BLOCKS = 8
"""Parts of a simulation whose averages count as independent."""
EQUILIBRATION = 0.2
"""Part of a simulation that comes before them."""
UNKNOWN_GROUND = 10.0
"""Extrapolation grade above which a potential is not trusted; the usual `md: gamma_halt`."""


class Measured(NamedTuple):
    """A value from simulations, and its standard error."""

    value: float
    error: float


@dataclass
class ThermalRuns:
    """Simulations of one crystal with one potential at one temperature."""

    calculator: BaseCalculator
    settings: ValidationSettings
    kelvin: float
    simulations: int = 0
    n_atoms: int = 0
    largest_gamma: float | None = None
    """of all atoms in all simulations; None where the calculator gives no grade"""

    @property
    def known_ground(self) -> bool:
        """Whether no atom was far from what the potential was trained on."""
        return self.largest_gamma is None or self.largest_gamma <= UNKNOWN_GROUND

    def describe(self) -> str:
        """What was simulated, in words."""
        length_ps = self.settings.thermal_steps * self.settings.simulation_timestep_fs / 1000
        words = f"{self.simulations} simulations of {self.n_atoms} atoms over {length_ps:g} ps"
        if self.largest_gamma is not None:
            words += f", extrapolation grade up to {self.largest_gamma:.3g}"
        return words

    def stresses(self, cell: Atoms) -> NDArray[np.float64]:
        """Average stress of each block of a simulation at fixed cell.

        Args:
            cell: the primitive cell; its supercell is simulated.

        Returns:
            (BLOCKS, 6) in eV/Å^3, ASE's sign and order, with the kinetic part.

        Raises:
            DataError: the simulation broke.
        """
        atoms = start(self.calculator, cell, self.settings, self.kelvin)
        self.simulations += 1
        self.n_atoms = len(atoms)
        # The same noise in all simulations: a part of it drops out of their differences.
        rng = np.random.default_rng([self.settings.seed, 2])
        dynamics = thermostat(atoms, self.settings, self.kelvin, rng)
        seen: list[NDArray[np.float64]] = []

        def sample() -> None:
            seen.append(atoms.get_stress(include_ideal_gas=True))
            gamma = self.calculator.results.get("gamma")
            if gamma is not None:
                self.largest_gamma = max(self.largest_gamma or 0.0, float(np.max(gamma)))

        steps = self.settings.thermal_steps
        if why := run(dynamics, atoms, steps, RUNAWAY * self.kelvin, sample):
            raise DataError(f"At {self.kelvin:g} K {why}.")
        kept = np.array(seen[int(EQUILIBRATION * len(seen)) :])
        return np.array([block.mean(axis=0) for block in np.array_split(kept, BLOCKS)])


def jackknife(estimate: Callable[[NDArray[np.bool_]], float]) -> Measured:
    """The value of all blocks, and its error from leaving each of them out.

    (B. Efron, C. Stein, Ann. Stat. 9, 586 (1981), Eq. 1.4.)

    Args:
        estimate: the value from the blocks that a mask (BLOCKS,) marks.
    """
    left_out = ~np.eye(BLOCKS, dtype=np.bool_)
    values = np.array([estimate(mask) for mask in left_out])
    variance = (BLOCKS - 1) / BLOCKS * np.sum((values - values.mean()) ** 2)
    return Measured(estimate(np.ones(BLOCKS, dtype=np.bool_)), float(np.sqrt(variance)))
