r"""Force constants of a supercell and its normal modes at the zone centre.

With the force constants Phi and masses m, the modes are the eigenvectors of
Phi_ij / sqrt(m_i m_j), with eigenvalues omega^2 (Born and Huang, *Dynamical Theory of Crystal
Lattices*, 1954). The modes of a supercell at its zone centre are those of the crystal at all wave
vectors that fit into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.generate.amplitude import HBAR_SQUARED
from aiida_autopipe.core.generate.calculators import forces_of
from aiida_autopipe.core.generate.cells import Repeat

DISPLACEMENT = 0.01
"""Of the finite differences, Å."""

TRANSVERSE = 0.15
"""Stiffness of the springs across a bond, relative to that along it, where nothing is known."""

SLOWEST = 1e-3
"""Smallest hbar omega of a mode that is no rigid motion, eV."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of n atoms.

    Attributes:
        energies: (M,) hbar omega in eV, without the rigid motions; for unstable modes
            hbar |omega|.
        vectors: (M, n, 3) orthonormal, weighted by the square roots of the masses.
        unstable: how many have a negative force constant.
    """

    energies: NDArray[np.float64]
    vectors: NDArray[np.float64]
    unstable: int


def measured_force_constants(
    crystal: Atoms, repeat: Repeat, calculator: BaseCalculator
) -> NDArray[np.float64]:
    """Force constants (3n, 3n) of the repeated crystal in eV/Å^2, by central differences.

    Only the atoms of the first cell are displaced: all others follow by translation.

    Raises:
        EngineError: the calculator fails.
    """
    supercell = crystal.repeat(repeat)
    n_cell, n = len(crystal), len(supercell)
    rows = np.zeros((n_cell, 3, n, 3))
    for atom in range(n_cell):
        for axis in range(3):
            sides = []
            for sign in (1.0, -1.0):
                moved = supercell.copy()
                moved.positions[atom, axis] += sign * DISPLACEMENT
                sides.append(forces_of(moved, calculator))
            rows[atom, axis] = -(sides[0] - sides[1]) / (2 * DISPLACEMENT)
    # Atoms of a repeated cell are ordered by cell, cells by their three counters.
    constants = np.zeros((n // n_cell, n_cell, 3, *repeat, n_cell, 3))
    by_cell = rows.reshape(n_cell, 3, *repeat, n_cell, 3)
    for number, shift in enumerate(np.ndindex(*repeat)):
        constants[number] = np.roll(by_cell, shift, axis=(2, 3, 4))
    return _balanced(constants.reshape(3 * n, 3 * n))


def spring_force_constants(supercell: Atoms, spring: float) -> NDArray[np.float64]:
    """Force constants (3n, 3n) in eV/Å^2 of springs between neighbours.

    Each bond, up to 1.3 of the shortest distance of an atom, resists stretching, and bending with
    0.15 of that. The stiffness is such that an atom whose neighbours are held has the spring
    constant of the Einstein model on average.

    Args:
        supercell: n atoms.
        spring: eV/Å^2, as `amplitude.spring_constant`.
    """
    n = len(supercell)
    neighbours = full_neighbour_list(supercell, 6.0)
    lengths = np.linalg.norm(neighbours.vectors, axis=1)
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, neighbours.centre, lengths)
    reach = 1.3 * np.maximum(nearest[neighbours.centre], nearest[neighbours.neighbour])
    bonded = lengths < reach
    unit = neighbours.vectors[bonded] / lengths[bonded, None]
    along = unit[:, :, None] * unit[:, None, :]
    blocks = along + TRANSVERSE * (np.eye(3) - along)
    constants = np.zeros((n, n, 3, 3))
    np.add.at(constants, (neighbours.centre[bonded], neighbours.neighbour[bonded]), -blocks)
    matrix = _balanced(constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n))
    return np.asarray(matrix * spring / np.mean(np.diag(matrix)))


def _balanced(constants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric, and such that moving all atoms together costs nothing."""
    symmetric = 0.5 * (constants + constants.T)
    n = len(symmetric) // 3
    blocks = symmetric.reshape(n, 3, n, 3)
    for axis in range(3):
        for other in range(3):
            total = blocks[:, axis, :, other].sum(axis=1)
            blocks[np.arange(n), axis, np.arange(n), other] -= total
    return np.asarray(0.5 * (symmetric + symmetric.T))


def normal_modes_of(constants: NDArray[np.float64], masses: NDArray[np.float64]) -> Modes:
    """Modes of force constants (3n, 3n) in eV/Å^2 and masses (n,) in u."""
    roots = np.repeat(np.sqrt(masses), 3)
    squares, vectors = np.linalg.eigh(constants / np.outer(roots, roots))
    energies = np.sqrt(np.abs(squares) * HBAR_SQUARED)
    # The three rigid motions have zero, up to rounding.
    moving = energies > SLOWEST
    signs = np.sign(vectors[np.argmax(np.abs(vectors) > 1e-6, axis=0), np.arange(len(squares))])
    chosen = (vectors * signs).T[moving].reshape(-1, len(masses), 3)
    return Modes(energies[moving], chosen, int(np.sum(squares[moving] < 0)))


def thermal_displacements(
    modes: Modes, masses: NDArray[np.float64], temperature_K: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Displacements (n, 3) in Å drawn from the canonical ensemble of quantum oscillators.

    Each mode has a normal coordinate of variance hbar / (2 omega) coth(hbar omega / 2kT).

    Args:
        modes: of the n atoms.
        masses: (n,) in u.
        temperature_K: at least 0.
        rng: source of randomness.
    """
    variance = HBAR_SQUARED / (2.0 * modes.energies)
    if temperature_K > 0:
        variance = variance / np.tanh(modes.energies / (2.0 * units.kB * temperature_K))
    coordinates = rng.normal(size=len(variance)) * np.sqrt(variance)
    weighted = np.tensordot(coordinates, modes.vectors, axes=1)
    return np.asarray(weighted / np.sqrt(masses)[:, None], dtype=np.float64)
