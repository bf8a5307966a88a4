"""The filter: what a frame looks like that no calculation is worth, found while it is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.explore.settings import ExploreSettings

REASONS = {
    "nan": "NaN or infinite positions, energies or forces",
    "force": "a force above the limit",
    "overlap": "two atoms too close to each other",
    "lost": "an atom without others around it",
    "volume": "an exploding or collapsing volume",
    "failed": "the surrogate failed",
}
"""Why trajectories end early, in words."""


@dataclass(frozen=True)
class Rejection:
    """Why a frame is refused: one of `REASONS`, and a sentence with the numbers."""

    reason: str
    detail: str


class Screen:
    """Judges the frames of one trajectory against its start."""

    def __init__(self, start: Atoms, settings: ExploreSettings) -> None:
        self._settings = settings
        self._volume = _volume(start)
        self._radii = covalent_radii[start.numbers]
        # A gas is not lost: only what had company before can lose it.
        self._is_dense = len(start) > 1 and self._loneliest(start)[1] <= settings.lost_distance

    def cheap(self, atoms: Atoms, energy: float, forces: NDArray[np.float64]) -> Rejection | None:
        """What is looked at after every step: NaN, force and volume."""
        finite = np.isfinite(energy) and np.isfinite(forces).all()
        if not (finite and np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell).all()):
            return Rejection("nan", "Positions, cell, energy or forces are NaN or infinite.")
        largest = float(np.sqrt((forces**2).sum(axis=1).max()))
        if largest > self._settings.max_force:
            limit = self._settings.max_force
            return Rejection("force", f"The largest force is {largest:.1f}, above {limit:g} eV/Å.")
        if self._volume is not None:
            ratio = float(atoms.get_volume()) / self._volume
            limit = self._settings.max_volume_change
            if not 1 / limit <= ratio <= limit:
                return Rejection("volume", f"The volume is {ratio:.2f} times that of the start.")
        return None

    def full(self, atoms: Atoms) -> Rejection | None:
        """What is looked at for every frame: overlap and lost atoms."""
        fraction = self._settings.min_distance
        neighbours = full_neighbour_list(atoms, 2 * fraction * float(self._radii.max()))
        lengths = np.linalg.norm(neighbours.vectors, axis=1)
        limits = fraction * (self._radii[neighbours.centre] + self._radii[neighbours.neighbour])
        close = np.flatnonzero(lengths < limits)
        if len(close):
            k = close[int(np.argmin(lengths[close]))]
            first, second = int(neighbours.centre[k]), int(neighbours.neighbour[k])
            return Rejection(
                "overlap", f"Atoms {first} and {second} are {lengths[k]:.2f} Å from each other."
            )
        if self._is_dense:
            atom, distance = self._loneliest(atoms)
            if distance > self._settings.lost_distance:
                limit = self._settings.lost_distance
                return Rejection("lost", f"Atom {atom} has no other within {limit:g} Å.")
        return None

    def _loneliest(self, atoms: Atoms) -> tuple[int, float]:
        """The atom whose nearest neighbour is farthest, and that distance; inf beyond the limit."""
        neighbours = full_neighbour_list(atoms, self._settings.lost_distance)
        nearest = np.full(len(atoms), np.inf)
        np.minimum.at(nearest, neighbours.centre, np.linalg.norm(neighbours.vectors, axis=1))
        atom = int(np.argmax(nearest))
        return atom, float(nearest[atom])


def _volume(atoms: Atoms) -> float | None:
    return float(atoms.get_volume()) if bool(atoms.pbc.all()) else None
