"""Lennard-Jones on a given pair list: what LAMMPS calls lj/cut with pair_modify shift yes."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class PairEvaluation:
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    gamma: NDArray[np.float64] | None


@dataclass
class LennardJones:
    """Its gamma is the energy of the worst atom, which is as good as any number to watch."""

    epsilon: float = 0.1
    sigma: float = 2.1
    cutoff: float = 4.0
    elements: list[str] = field(default_factory=lambda: ["Si"])

    def evaluate_pairs(
        self,
        types: NDArray[np.int64],
        centre: NDArray[np.int64],
        neighbour: NDArray[np.int64],
        vectors: NDArray[np.float64],
        n_atoms: int,
        gamma: bool,
    ) -> PairEvaluation:
        energies, forces, virial = np.zeros(n_atoms), np.zeros((n_atoms, 3)), np.zeros(6)
        shift = (self.sigma / self.cutoff) ** 12 - (self.sigma / self.cutoff) ** 6
        for i, j, vector in zip(centre, neighbour, vectors, strict=True):
            r2 = vector @ vector
            sixth = (self.sigma**2 / r2) ** 3
            # Every pair is in the list twice: half of it each time.
            energies[i] += 2 * self.epsilon * (sixth**2 - sixth - shift)
            gradient = 2 * self.epsilon * (-12 * sixth**2 + 6 * sixth) / r2 * vector
            forces[i] += gradient
            forces[j] -= gradient
            x, y, z = vector
            gx, gy, gz = gradient
            virial += [x * gx, y * gy, z * gz, y * gz, x * gz, x * gy]
        return PairEvaluation(energies, forces, virial, np.exp(energies) if gamma else None)
