"""Energy over a wide range of volumes, reference and potential at the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.validate.eos import eos_structures
from aiida_autopipe.core.validate.family import Family, Planned
from aiida_autopipe.core.validate.labelled import (
    Labelled,
    energy_of,
    parameters_of,
    rows_of,
    volume_of,
)
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import (
    Comparison,
    Plot,
    PropertyValue,
    Series,
    compare_curves,
)

FEWEST = 5
"""Volumes that make a curve."""


class EosCurveFamily(Family):
    """E(V) - E(min) per atom over the volumes around the reference's equilibrium.

    The value is the range of the energies; the error is the root mean square difference of the two
    curves, each from its own lowest energy, over the reference's range.
    """

    key = "energy_volume_curve"
    names = "eos_curve"
    examples = ("eos_curve",)
    at_reference = True

    def label(self, name: str) -> str:
        """What readers call the property."""
        return "Energy over volume, range"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "eV/atom"

    def roles(self, name: str) -> tuple[str, ...]:
        """The scaled cells."""
        return ("eos_curve",)

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """Isotropically scaled cells with the mesh of the primitive one."""
        cells = eos_structures(equilibrium, settings.eos_curve_points, settings.eos_curve_range)
        for cell in cells:
            cell.info["origin"] = "validate:eos_curve"
        return [Planned(cell, "eos_curve", primitive) for cell in cells]

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """The curve, by increasing volume."""
        cells = labelled.second_stage(name)
        points = []
        for i in rows_of(cells, "eos_curve"):
            n_atoms = int(cells.sizes[i])
            strain = float(parameters_of(cells, i)["volume_strain"])
            points.append((strain, volume_of(cells, i) / n_atoms, energy_of(cells, i) / n_atoms))
        if len(points) < FEWEST:
            raise DataError(f"Only {len(points)} volumes of '{name}' were computed.")
        strains, volumes, energies = np.array(sorted(points)).T
        return PropertyValue(
            float(np.ptp(energies)),
            self.unit(name),
            data={"strain": strains, "volume": volumes, "energy": energies},
        )

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """Root mean square difference over the range, at the volumes that both sides have."""
        error, notes = float("nan"), []
        if potential.data and reference.data:
            one, other = _common(potential, reference)
            if len(one) >= FEWEST:
                rms = float(np.sqrt(np.mean((one - one.min() - other + other.min()) ** 2)))
                error = rms / float(np.ptp(other))
                notes.append(f"root mean square difference {1000 * rms:.3g} meV/atom")
        return compare_curves(name, potential, reference, tolerance, error, notes)

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """Both curves from their own lowest energy."""
        series = [
            Series(
                side,
                mode,
                found.data["volume"].tolist(),
                (1000 * (found.data["energy"] - found.data["energy"].min())).tolist(),
            )
            for side, mode, found in (
                ("reference", "markers", reference),
                ("potential", "lines", potential),
            )
            if found.data
        ]
        return (
            Plot(
                name=name,
                title="Energy over a wide range of volumes",
                x_label="volume (Å³/atom)",
                y_label="E − E(min) (meV/atom)",
                series=tuple(series),
                note="Each curve is measured from its own lowest energy.",
            )
            if series
            else None
        )


def _common(
    potential: PropertyValue, reference: PropertyValue
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energies of both sides at the volumes that both have."""
    own = dict(zip(potential.data["strain"].round(9), potential.data["energy"], strict=True))
    theirs = dict(zip(reference.data["strain"].round(9), reference.data["energy"], strict=True))
    shared = sorted(set(own) & set(theirs))
    return np.array([own[s] for s in shared]), np.array([theirs[s] for s in shared])
