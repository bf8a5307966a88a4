"""Rattled cells: Gaussian displacements together with a small random strain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import thermal_amplitude
from aiida_autopipe.core.generate.cells import Repeat, check_count, repeated
from aiida_autopipe.core.generate.strain import apply_strain, mark

ATTEMPTS = 200


def rattled_cells(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    repeat: Repeat | None = None,
    width: float = 5.0,
    copies: int = 2,
    amplitudes: Sequence[float] | None = None,
    temperatures_K: Sequence[float] = (100.0, 300.0, 800.0),
    strain: float = 0.02,
    debye_temperature_K: float | None = None,
) -> list[Atoms]:
    """Supercells with random displacements, as large as heat makes them, and a small strain.

    Args:
        crystal: primitive cell.
        rng: source of randomness.
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        copies: structures for each amplitude.
        amplitudes: standard deviations of displacement components in Å; null are the thermal ones.
        temperatures_K: of the thermal displacements, by Debye's model (see `amplitude`).
        strain: standard deviation of the components of the strain.
        debye_temperature_K: of the crystal; null takes those of the elements.

    Raises:
        InputError: not a crystal, a temperature below zero, or displacements that are too large.
    """
    check_count("copies", copies)
    cell = repeated(crystal, repeat, width)
    if amplitudes is None:
        amplitudes = [thermal_amplitude(crystal, t, debye_temperature_K) for t in temperatures_K]
    return [
        atoms
        for amplitude in amplitudes
        for atoms in rattle(cell, amplitude, copies, rng, strain_amplitude=strain)
    ]


def smallest_distance(atoms: Atoms) -> float:
    """Smallest interatomic distance in Å, periodic images included; inf for one atom in vacuum."""
    lengths = np.linalg.norm(atoms.cell.array, axis=1)
    if not np.any(atoms.pbc):
        distances = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
        return float(np.min(distances, initial=np.inf))
    # A lattice vector's length is itself a distance between images, so nothing shorter is missed.
    cutoff = float(np.min(lengths[atoms.pbc])) + 1e-6
    return float(np.min(neighbor_list("d", atoms, cutoff), initial=np.inf))


def rattle(
    atoms: Atoms,
    amplitude: float,
    n: int,
    rng: np.random.Generator,
    *,
    strain_amplitude: float = 0.02,
    minimum_distance: float | None = None,
    origin: str = "rattle",
) -> list[Atoms]:
    """Copies with normally distributed displacements and a normally distributed symmetric strain.

    A copy with two atoms closer than the minimum distance is drawn again.

    Args:
        atoms: the cell to rattle, already repeated.
        amplitude: standard deviation of each displacement component in Å.
        n: number of copies.
        rng: source of randomness.
        strain_amplitude: standard deviation of each component of the strain tensor.
        minimum_distance: in Å; default 0.65 of the smallest distance in `atoms`.
        origin: recorded in `info`.

    Raises:
        InputError: a negative amplitude, or no acceptable copy in 200 draws.
    """
    if amplitude < 0 or strain_amplitude < 0:
        raise InputError(
            f"Rattle amplitudes are standard deviations: {min(amplitude, strain_amplitude)} "
            "must not be negative."
        )
    if minimum_distance is None:
        nearest = smallest_distance(atoms)
        minimum_distance = 0.65 * nearest if np.isfinite(nearest) else 0.0
    return [
        mark(
            _draw(atoms, amplitude, strain_amplitude, minimum_distance, rng),
            origin,
            amplitude_A=float(amplitude),
            strain_amplitude=float(strain_amplitude),
            copy=i,
        )
        for i in range(n)
    ]


def _draw(
    atoms: Atoms,
    amplitude: float,
    strain_amplitude: float,
    minimum_distance: float,
    rng: np.random.Generator,
) -> Atoms:
    for _ in range(ATTEMPTS):
        candidate = apply_strain(atoms, _random_strain(strain_amplitude, rng))
        candidate.positions += rng.normal(scale=amplitude, size=(len(atoms), 3))
        if smallest_distance(candidate) >= minimum_distance:
            return candidate
    raise InputError(
        f"No rattled {atoms.get_chemical_formula()} with displacements of {amplitude} Å keeps its "
        f"atoms {minimum_distance:.2f} Å apart: lower the rattle amplitude."
    )


def _random_strain(amplitude: float, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = np.triu(rng.normal(scale=amplitude, size=(3, 3)))
    # Three standard deviations: a rare large strain belongs to the strain generator, not here.
    drawn = np.clip(drawn, -3 * amplitude, 3 * amplitude)
    return np.asarray(drawn + np.triu(drawn, 1).T, dtype=np.float64)
