"""Equation of state and elastic constants at a temperature, from simulations with the potential.

No oracle can afford them, so there is no reference: a row is about the potential alone, and about
how well its simulations determine the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.generate.strain import scale_volume
from aiida_autopipe.core.symmetry import find_symmetry
from aiida_autopipe.core.validate.elastic import (
    elastic_constants,
    elastic_structures,
    is_elastic,
    named_constant,
)
from aiida_autopipe.core.validate.eos import Eos, fit_eos_pressures
from aiida_autopipe.core.validate.family import Family
from aiida_autopipe.core.validate.lattice import LatticeFamily, of_equation_of_state
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.thermal_run import (
    BLOCKS,
    UNKNOWN_GROUND,
    Measured,
    ThermalRuns,
    jackknife,
)
from aiida_autopipe.core.validate.values import Comparison, Plot, PropertyValue, Series

NAME = re.compile(r"(lattice_constant|volume_per_atom|bulk_modulus|C[1-6][1-6]):(\d+(?:\.\d+)?)K")
VOLUMES = (0.97, 0.985, 1.0, 1.015, 1.03, 1.045)
"""Of the cell at rest; crystals expand when they are heated."""
VOLUME_STEP = 0.015
MOST_VOLUMES = 14
"""Where the pressure does not change its sign among these there is no equation of state."""
AMBIENT = LatticeFamily()


class ThermalFamily(Family):
    """Properties of crystals with a temperature behind their name, such as `C11:300K`."""

    key = "thermal"
    names = "lattice_constant:300K, bulk_modulus:300K, C11:300K and others with a temperature"
    examples = ("lattice_constant:300K", "volume_per_atom:300K", "bulk_modulus:300K", "C11:300K")
    needs_reference = False

    def owns(self, name: str) -> bool:
        """True for a property of crystals with a temperature behind it."""
        return NAME.fullmatch(name) is not None

    def label(self, name: str) -> str:
        """What readers call the property."""
        base, kelvin = _parts(name)
        plain = f"Elastic constant {base}" if is_elastic(base) else AMBIENT.label(base)
        return f"{plain} at {kelvin:g}\N{NO-BREAK SPACE}K"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        base, _ = _parts(name)
        return "GPa" if is_elastic(base) else AMBIENT.unit(base)

    def undefined(self, name: str, primitive: Atoms) -> str | None:
        """Only a crystal has these, and only above 0 K."""
        if not np.all(primitive.pbc):
            return "only defined for crystals"
        return None if _parts(name)[1] > 0 else "only defined above 0 K"

    def resolved(self, name: str, primitive: Atoms) -> str:
        """The volume per atom where there is no single lattice constant."""
        base, kelvin = _parts(name)
        if is_elastic(base):
            return f"{base}:{kelvin:g}K"
        return f"{AMBIENT.resolved(base, primitive)}:{kelvin:g}K"

    def limit(self, name: str, settings: ValidationSettings) -> float:
        """None: the demand is on the precision."""
        return float("nan")

    def simulate(
        self,
        names: Sequence[str],
        calculator: BaseCalculator,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> dict[str, PropertyValue]:
        """All properties of one temperature come from the same simulations."""
        values: dict[str, PropertyValue] = {}
        for kelvin in dict.fromkeys(_parts(name)[1] for name in names):
            own = [name for name in names if _parts(name)[1] == kelvin]
            runs = ThermalRuns(calculator, settings, kelvin)
            try:
                values |= self._measured(own, equilibrium, runs)
            except DataError as error:
                nothing = float("nan")
                values |= {n: PropertyValue(nothing, self.unit(n), str(error)) for n in own}
        return values

    def _measured(
        self, names: Sequence[str], equilibrium: Atoms, runs: ThermalRuns
    ) -> dict[str, PropertyValue]:
        """Properties of one temperature; the curve goes with the first."""
        crystal = ThermalCrystal.simulated(equilibrium, runs)
        found = {name: crystal.measure(_parts(name)[0]) for name in names}
        words = runs.describe()
        if not runs.known_ground:
            words += f", beyond {UNKNOWN_GROUND:g}: unknown ground"
        values = {}
        for name, (value, error) in found.items():
            note = f"± {error:.2g} {self.unit(name)} (standard error); {words}"
            data: dict[str, Any] = {"standard_error": error, "known_ground": runs.known_ground}
            if name == names[0]:
                data |= crystal.curve()
            values[name] = PropertyValue(value, self.unit(name), note, data)
        return values

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """Passes where the standard error is within the tolerance, and the ground was known."""
        error = potential.data.get("standard_error", float("nan"))
        relative = abs(error / potential.value) if potential.value else float("nan")
        known = potential.data.get("known_ground", False)
        return Comparison(
            name=name,
            potential=potential.value,
            reference=float("nan"),
            unit=potential.unit,
            relative_error=relative,
            passed=bool(relative <= tolerance and known),
            note=potential.note,
            rule="precision",
        )

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """Pressure over volume, once for each temperature."""
        if "pressure" not in potential.data:
            return None
        _, kelvin = _parts(name)
        data = potential.data
        return Plot(
            name=name,
            title=f"Pressure over volume at {kelvin:g} K",
            x_label="volume (Å³/atom)",
            y_label="pressure (GPa)",
            series=(
                Series("potential", "markers", data["volume"].tolist(), data["pressure"].tolist()),
                Series("potential", "lines", data["line"].tolist(), data["fit"].tolist()),
            ),
            note="Points are simulations with the potential, the line is the equation of state.",
        )


@dataclass(frozen=True)
class ThermalCrystal:
    """Pressures of a crystal at several volumes and one temperature.

    Attributes:
        cell: the primitive cell, turned to its conventional axes.
        runs: simulates it.
        volumes: (m,) of that cell, Å^3.
        pressures: (m, BLOCKS) in eV/Å^3.
    """

    cell: Atoms
    runs: ThermalRuns
    volumes: NDArray[np.float64]
    pressures: NDArray[np.float64]

    @classmethod
    def simulated(cls, cell: Atoms, runs: ThermalRuns) -> ThermalCrystal:
        """Simulate at `VOLUMES`, and beyond until two of them are under tension.

        Raises:
            DataError: a simulation broke.
        """

        def pressure(ratio: float) -> NDArray[np.float64]:
            stresses = runs.stresses(scale_volume(cell, ratio))
            return np.asarray(-stresses[:, :3].mean(axis=1))

        ratios = list(VOLUMES)
        pressures = [pressure(ratio) for ratio in ratios]
        while pressures[-2].mean() > 0 and len(ratios) < MOST_VOLUMES:
            ratios.append(round(ratios[-1] + VOLUME_STEP, 6))
            pressures.append(pressure(ratios[-1]))
        volumes = np.array(ratios) * float(cell.get_volume())
        return cls(cell, runs, volumes, np.array(pressures))

    def fit(self, blocks: NDArray[np.bool_]) -> Eos:
        """Equation of state from some of the blocks of each simulation."""
        return fit_eos_pressures(self.volumes, self.pressures[:, blocks].mean(axis=1))

    @cached_property
    def equation_of_state(self) -> Eos:
        """Of all blocks."""
        return self.fit(np.ones(BLOCKS, dtype=np.bool_))

    @cached_property
    def strained(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Strains (m, 6) of the cell at its volume at this temperature, and stresses
        (m, BLOCKS, 6)."""
        volume = self.equation_of_state.v0
        cell = scale_volume(self.cell, volume / float(self.cell.get_volume()))
        cells = elastic_structures(cell, self.runs.settings.thermal_strain)
        strains = [json.loads(one.info["parameters"])["strain"] for one in cells]
        return np.array(strains), np.array([self.runs.stresses(one) for one in cells])

    def measure(self, name: str) -> Measured:
        """An isothermal elastic constant in GPa, or what the equation of state gives."""
        if not is_elastic(name):
            return jackknife(lambda blocks: of_equation_of_state(name, self.fit(blocks), self.cell))
        strains, stresses = self.strained
        rotations = find_symmetry(self.cell).rotations

        def constant(blocks: NDArray[np.bool_]) -> float:
            means = stresses[:, blocks].mean(axis=1)
            return named_constant(
                elastic_constants(strains, means, rotations=rotations, require_pairs=True), name
            )

        return jackknife(constant)

    def curve(self) -> dict[str, NDArray[np.float64]]:
        """Pressures (GPa) over volumes (Å^3 per atom), simulated and fitted."""
        line = np.linspace(self.volumes.min(), self.volumes.max(), 41)
        n = len(self.cell)
        return {
            "volume": self.volumes / n,
            "pressure": self.pressures.mean(axis=1) / units.GPa,
            "line": line / n,
            "fit": self.equation_of_state.pressure(line) / units.GPa,
        }


def _parts(name: str) -> tuple[str, float]:
    """Property and temperature in K."""
    match = NAME.fullmatch(name)
    if match is None:
        raise InputError(f"'{name}' is not a property at a temperature, such as 'C11:300K'.")
    return match.group(1), float(match.group(2))
