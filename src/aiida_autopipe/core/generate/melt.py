"""Liquid and amorphous structures by molecular dynamics with a surrogate."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.generate.amplitude import spring_constant
from aiida_autopipe.core.generate.calculators import forces_of, make_calculator
from aiida_autopipe.core.generate.cells import Repeat, check_count, check_positive, repeated
from aiida_autopipe.core.generate.strain import mark, scale_volume
from aiida_autopipe.core.generate.voids import nearest_neighbour

FRICTION = 0.02
"""Of the thermostat, 1/fs."""

SUPERHEATING = 3.0
"""A perfect crystal melts in picoseconds only far above its melting point."""

MELTED = 0.3
"""A liquid's root mean square displacement, at least, in shortest distances of the crystal."""


def melt(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    calculator: BaseCalculator | str = "",
    keywords: Mapping[str, Any] | None = None,
    trust: bool = False,
    repeat: Repeat | None = None,
    width: float = 9.0,
    melting_point_K: float | None = None,
    expansion: float = 0.06,
    timestep_fs: float = 2.0,
    melt_steps: int = 1000,
    liquid_steps: int = 1000,
    liquids: int = 3,
    quench_steps: int = 1000,
    amorphous: int = 1,
) -> list[Atoms]:
    """Liquid structures, and amorphous ones quenched from them, at constant volume.

    A supercell is heated at three times its melting point until it has lost its order, held at 1.3
    of the melting point while liquid structures are taken, and for amorphous ones cooled to 300 K
    at a constant rate.

    Args:
        crystal: primitive cell.
        rng: source of randomness.
        calculator: an ASE calculator, or a surrogate by name, file or import path.
        keywords: of the surrogate.
        trust: open the surrogate's file although it can run code (`.model` of MACE).
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        melting_point_K: null is Lindemann's estimate from the Debye temperatures of the elements.
        expansion: relative increase of the volume on melting.
        timestep_fs: of the molecular dynamics.
        melt_steps: at three times the melting point.
        liquid_steps: at 1.3 of the melting point; the liquids are taken at equal intervals.
        liquids: structures.
        quench_steps: from there to 300 K.
        amorphous: structures; each is quenched from the liquid after the one before.

    Raises:
        InputError: no calculator, not a crystal, or settings out of range.
        EngineError: the calculator fails.
        DataError: atoms were lost, or the crystal did not melt.
    """
    if isinstance(calculator, str) and not calculator:
        raise InputError("A melt needs a calculator: name a surrogate, such as calculator: chgnet.")
    for name, count in (("liquids", liquids), ("amorphous", amorphous)):
        check_count(name, count)
    for name, count in (
        ("melt_steps", melt_steps),
        ("liquid_steps", liquid_steps),
        ("quench_steps", quench_steps),
    ):
        check_count(name, count, 1)
    check_positive("timestep_fs", timestep_fs)
    check_positive("1 + expansion", 1.0 + expansion)
    melting = lindemann_temperature(crystal) if melting_point_K is None else melting_point_K
    check_positive("melting_point_K", melting)
    start = scale_volume(repeated(crystal, repeat, width), 1.0 + expansion)
    source = calculator if isinstance(calculator, str) else type(calculator).__name__
    run = _Run(start, make_calculator(calculator, keywords, trust), timestep_fs, rng)
    hot, warm = SUPERHEATING * melting, 1.3 * melting
    run.heat(hot, melt_steps)
    run.check_melted(nearest_neighbour(crystal), hot)
    facts = {"calculator": source, "melting_point_K": round(melting, 1), "expansion": expansion}
    structures = []
    pause = max(1, liquid_steps // max(1, liquids))
    for copy in range(liquids):
        run.hold(warm, pause)
        structures.append(mark(run.atoms, "melt:liquid", temperature_K=warm, copy=copy, **facts))
    for copy in range(amorphous):
        run.hold(warm, pause)
        quenched = run.quenched(warm, 300.0, quench_steps)
        rate = (warm - 300.0) / (quench_steps * timestep_fs)
        structures.append(
            mark(quenched, "melt:amorphous", rate_K_per_fs=round(rate, 4), copy=copy, **facts)
        )
    return structures


def lindemann_temperature(crystal: Atoms) -> float:
    """Melting point in K, to a factor of two in metals: where <u^2> is (d/10)^2 in three axes.

    <u^2> = 3 kT / f with the spring constant f of the Einstein model and the shortest distance d
    (Lindemann 1910, Gilvarry, Phys. Rev. 102, 308 (1956)).

    Raises:
        InputError: no Debye temperature is known.
    """
    spring = spring_constant(crystal)
    return float(spring * (0.1 * nearest_neighbour(crystal)) ** 2 / (3.0 * units.kB))


class _Run:
    """One trajectory; positions are not wrapped, so that displacements are those travelled."""

    def __init__(
        self, start: Atoms, calculator: BaseCalculator, timestep_fs: float, rng: np.random.Generator
    ) -> None:
        self.atoms: Atoms = start.copy()
        self._start: NDArray[np.float64] = start.positions.copy()
        self._calculator = calculator
        self._timestep = timestep_fs * units.fs
        self._rng = rng
        # Says in our words that the calculator does not work, before ASE's MD does in its own.
        forces_of(self.atoms, calculator)

    def heat(self, temperature: float, steps: int) -> None:
        """Random velocities of a temperature, then MD with a thermostat."""
        thermalize_momenta(self.atoms, temperature, rng=self._rng)
        self.hold(temperature, steps)

    def hold(self, temperature: float, steps: int) -> None:
        """MD at a temperature."""
        self._move(self.atoms, [temperature], steps)

    def quenched(self, first: float, last: float, steps: int) -> Atoms:
        """A copy that was cooled at a constant rate."""
        cooled: Atoms = self.atoms.copy()
        self._move(cooled, np.linspace(first, last, min(steps, 50)).tolist(), steps)
        return cooled

    def _move(self, atoms: Atoms, temperatures: list[float], steps: int) -> None:
        atoms.calc = self._calculator
        for number, temperature in enumerate(temperatures):
            share = steps * (number + 1) // len(temperatures) - steps * number // len(temperatures)
            with warnings.catch_warnings():
                # ASE announces changes of its thermostat that do not concern this use.
                warnings.simplefilter("ignore", FutureWarning)
                dynamics = Langevin(
                    atoms,
                    self._timestep,
                    temperature_K=temperature,
                    friction=FRICTION / units.fs,
                    fixcm=False,
                    rng=self._rng,
                )
            dynamics.run(share)
        if not np.isfinite(atoms.positions).all() or np.max(np.abs(atoms.get_velocities())) > 100.0:
            raise DataError(
                f"The melt of {atoms.get_chemical_formula()} lost its atoms: take a shorter "
                "timestep_fs or another calculator."
            )

    def check_melted(self, nearest: float, temperature: float) -> None:
        """Raise DataError when the atoms have not left their sites."""
        moved = self.atoms.positions - self._start
        moved -= moved.mean(axis=0)
        travelled = float(np.sqrt(np.mean(np.sum(moved**2, axis=1))))
        if travelled < MELTED * nearest:
            raise DataError(
                f"{self.atoms.get_chemical_formula()} did not melt at {temperature:.0f} K (its "
                f"atoms moved {travelled:.2f} Å): give melting_point_K or more melt_steps."
            )
