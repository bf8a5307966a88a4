"""The labelled structures of one side of a validation, and how a family finds its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.strain import scale_volume
from aiida_autopipe.core.symmetry import align_to_conventional_axes
from aiida_autopipe.core.validate.eos import Eos, fit_eos
from aiida_autopipe.core.validate.settings import ValidationSettings


@dataclass(frozen=True)
class Labelled:
    """What one side computed: the structures of both stages, and the cell they were made from."""

    primitive: Atoms
    eos: Dataset
    equilibrium: Dataset | None
    settings: ValidationSettings

    def equation_of_state(self) -> Eos:
        """Equation of state of the primitive cell."""
        return equation_of_state(self.eos)

    def equilibrium_cell(self) -> Atoms:
        """The primitive cell at its equilibrium volume, as it was planned."""
        return at_volume(self.primitive, self.equation_of_state().v0)

    def second_stage(self, name: str) -> Dataset:
        """Structures at the equilibrium volume.

        Raises:
            DataError: there are none.
        """
        if self.equilibrium is None:
            raise DataError(
                f"'{name}' needs calculations at the equilibrium volume; there are none."
            )
        return self.equilibrium


def at_volume(primitive: Atoms, volume: float) -> Atoms:
    """The primitive cell turned to its conventional axes, at a volume in Å^3."""
    aligned = align_to_conventional_axes(primitive)
    return scale_volume(aligned, volume / float(aligned.get_volume()))


def equation_of_state(labelled: Dataset) -> Eos:
    """Equation of state of the structures with role 'eos', per cell as computed.

    Raises:
        DataError: too few labelled volumes, or no minimum among them.
    """
    rows = rows_of(labelled, "eos")
    return fit_eos([volume_of(labelled, i) for i in rows], [energy_of(labelled, i) for i in rows])


def rows_of(labelled: Dataset, role: str) -> list[int]:
    """Indices of the structures with a role.

    Raises:
        DataError: there are none.
    """
    roles = labelled.columns.get("role", np.zeros(0, dtype=str))
    rows = [i for i in range(len(labelled)) if str(roles[i]) == role]
    if not rows:
        raise DataError(f"There is no labelled structure with the role '{role}'.")
    return rows


def energy_of(labelled: Dataset, index: int) -> float:
    """Energy of a structure in eV.

    Raises:
        DataError: it has none.
    """
    energy = labelled.labels(index).energy
    if energy is None:
        raise DataError(f"Structure {index} of the validation has no energy.")
    return energy


def volume_of(labelled: Dataset, index: int) -> float:
    """Volume of a structure's cell in Å^3."""
    return abs(float(np.linalg.det(labelled.cell[index])))


def parameters_of(labelled: Dataset, index: int) -> dict[str, Any]:
    """What a planned structure was made with."""
    return dict(json.loads(str(labelled.columns["parameters"][index])))
