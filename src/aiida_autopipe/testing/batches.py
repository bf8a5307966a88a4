"""The one batch of structures that a contract test labels, and how a job labels it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class Difference:
    """Two structures whose energies tell a derivative.

    Attributes:
        base: position of the structure that the derivative is of.
        component: (atom, axis) of a force, or (Voigt index,) of a stress.
        plus: position of the structure displaced or strained by `step`.
        minus: position of the one displaced or strained the other way.
        step: Å, or strain.
    """

    base: int
    component: tuple[int, ...]
    plus: int
    minus: int
    step: float


@dataclass
class Batch:
    """Structures by role; a position is an index into `structures`."""

    structures: list[Atoms] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    forces: list[Difference] = field(default_factory=list)
    stresses: list[Difference] = field(default_factory=list)

    def add(self, role: str, atoms: Atoms, relax: bool = False) -> int:
        """Another structure; its position."""
        added = atoms.copy()
        added.calc = None
        added.info["relax"] = relax
        self.structures.append(added)
        self.roles.append(role)
        return len(self.structures) - 1

    def positions(self, role: str) -> list[int]:
        """Where the structures of a role are."""
        return [i for i, found in enumerate(self.roles) if found == role]

    def differentiate(self, base: int, forces: int, strains: Sequence[int], step: float) -> None:
        """Add what is needed for derivatives of the energy of a structure.

        Args:
            base: its position.
            forces: how many components of forces, spread over atoms and axes.
            strains: Voigt indices of the components of the stress.
            step: displacement in Å; strains are a tenth of it.
        """
        atoms = self.structures[base]
        size = 3 * len(atoms)
        for k in sorted({(k * size) // forces + k % 3 for k in range(forces)}):
            atom, axis = divmod(min(k, size - 1), 3)
            pair = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                pair.append(self.add("displaced", moved))
            self.forces.append(Difference(base, (atom, axis), pair[0], pair[1], step))
        for component in strains:
            pair = [
                self.add("strained", _strained(atoms, component, s * step / 10)) for s in (1, -1)
            ]
            self.stresses.append(Difference(base, (component,), pair[0], pair[1], step / 10))

    def dataset(self, columns: Mapping[str, Any]) -> Dataset:
        """The batch with a column that names each structure, and columns of the same value."""
        n = len(self.structures)
        named = {"name": [f"{role}-{i}" for i, role in enumerate(self.roles)]}
        named["relax"] = [bool(a.info["relax"]) for a in self.structures]  # type: ignore[misc]
        same = {key: [value] * n for key, value in columns.items()}
        return Dataset.from_atoms(self.structures, columns={**named, **same})


def _strained(atoms: Atoms, component: int, strain: float) -> Atoms:
    """A symmetric strain whose energy derivative is volume times the Voigt component."""
    row, column = VOIGT[component]
    deformation = np.eye(3)
    deformation[row, column] += strain / 2
    deformation[column, row] += strain / 2
    result: Atoms = atoms.copy()
    result.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return result
