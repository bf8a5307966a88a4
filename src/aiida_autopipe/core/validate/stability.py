"""What the potential alone must do in molecular dynamics: keep its energy, and hold together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.md.verlet import VelocityVerlet

from aiida_autopipe.core.validate.family import Family
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.simulation import CHECK_EVERY, RUNAWAY, run, start, thermostat
from aiida_autopipe.core.validate.values import Comparison, Plot, PropertyValue, Rule, Series

FRACTIONS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Temperatures that are tried, in demanded temperatures, until one fails."""


class LimitFamily(Family):
    """Properties of the potential alone, held against a limit."""

    needs_reference = False
    rule: Rule

    def simulate(
        self,
        names: Sequence[str],
        calculator: BaseCalculator,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> dict[str, PropertyValue]:
        """Each such family has one property."""
        return {name: self.measured(name, calculator, equilibrium, settings) for name in names}

    def measured(
        self,
        name: str,
        calculator: BaseCalculator,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> PropertyValue:
        """The property of the potential."""
        raise NotImplementedError

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """The value against the limit, which stands where others have the reference's value."""
        limit = reference.value
        below = potential.value <= limit
        return Comparison(
            name=name,
            potential=potential.value,
            reference=float("nan"),
            unit=reference.unit,
            relative_error=float("nan"),
            passed=bool(below if self.rule == "at_most" else potential.value >= limit),
            note=potential.note,
            rule=self.rule,
            limit=limit,
        )


class NveFamily(LimitFamily):
    """Drift of the total energy in a microcanonical simulation."""

    key = "nve_stability"
    names = "nve_stability"
    examples = ("nve_stability",)
    rule = "at_most"

    def label(self, name: str) -> str:
        """What readers call the property."""
        return "Energy drift in NVE"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "meV/atom/ps"

    def limit(self, name: str, settings: ValidationSettings) -> float:
        """The largest drift."""
        return settings.nve_drift_meV_per_atom_ps

    def measured(
        self,
        name: str,
        calculator: BaseCalculator,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> PropertyValue:
        """Slope of the total energy over time, of a straight line through all steps."""
        atoms = start(calculator, equilibrium, settings, settings.nve_temperature_K)
        dynamics = VelocityVerlet(atoms, settings.simulation_timestep_fs * units.fs)
        totals: list[float] = []

        def sample() -> None:
            totals.append(float(atoms.get_total_energy()))

        why = run(dynamics, atoms, settings.simulation_steps, np.inf, sample)
        if why:
            return PropertyValue(float("nan"), self.unit(name), why)
        time = np.arange(len(totals)) * settings.simulation_timestep_fs * CHECK_EVERY / 1000
        energies = 1000 * (np.array(totals) - totals[0]) / len(atoms)
        slope = float(np.polyfit(time, energies, 1)[0])
        note = (
            f"{len(atoms)} atoms, {time[-1]:g} ps from {settings.nve_temperature_K:g} K with steps "
            f"of {settings.simulation_timestep_fs:g} fs; fluctuation {energies.std():.2g} meV/atom"
        )
        return PropertyValue(abs(slope), self.unit(name), note, {"time": time, "energy": energies})

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """The total energy over time."""
        if not potential.data:
            return None
        x, y = potential.data["time"].tolist(), potential.data["energy"].tolist()
        return Plot(
            name=name,
            title="Total energy in NVE",
            x_label="time (ps)",
            y_label="E − E(0) (meV/atom)",
            series=(Series("potential", "lines", x, y),),
        )


class StableTemperatureFamily(LimitFamily):
    """The highest temperature that a crystal survives; at constant volume, with a thermostat."""

    key = "max_stable_temperature"
    names = "max_stable_temperature"
    examples = ("max_stable_temperature",)
    rule = "at_least"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "K"

    def limit(self, name: str, settings: ValidationSettings) -> float:
        """The temperature that is demanded."""
        return settings.stable_temperature_K

    def measured(
        self,
        name: str,
        calculator: BaseCalculator,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> PropertyValue:
        """Simulations at rising temperatures, each from the last frame of the one before."""
        demanded = settings.stable_temperature_K
        atoms = start(calculator, equilibrium, settings, FRACTIONS[0] * demanded)
        rng = np.random.default_rng([settings.seed, 1])
        survived = 0.0
        trace: list[float] = []
        note = f"the highest of {len(FRACTIONS)} temperatures that were tried"

        def sample() -> None:
            trace.append(float(atoms.get_temperature()))

        for fraction in FRACTIONS:
            kelvin = fraction * demanded
            dynamics = thermostat(atoms, settings, kelvin, rng)
            why = run(dynamics, atoms, settings.simulation_steps, RUNAWAY * kelvin, sample)
            if why:
                note = f"at {kelvin:g} K {why}"
                break
            survived = kelvin
        step_ps = settings.simulation_timestep_fs * CHECK_EVERY / 1000
        time = np.arange(len(trace)) * step_ps
        return PropertyValue(
            survived, self.unit(name), note, {"time": time, "temperature": np.array(trace)}
        )

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """The temperature over time."""
        if not potential.data:
            return None
        x, y = potential.data["time"].tolist(), potential.data["temperature"].tolist()
        return Plot(
            name=name,
            title="Heating until it breaks",
            x_label="time (ps)",
            y_label="temperature (K)",
            series=(
                Series("potential", "lines", x, y),
                Series("limit", "lines", [x[0], x[-1]], [reference.value] * 2),
            ),
        )
