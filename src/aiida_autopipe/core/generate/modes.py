"""Displacements along the normal modes of a crystal, as heat populates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import spring_constant
from aiida_autopipe.core.generate.calculators import make_calculator
from aiida_autopipe.core.generate.cells import Repeat, check_count, repeated, widths
from aiida_autopipe.core.generate.force_constants import (
    Modes,
    measured_force_constants,
    normal_modes_of,
    spring_force_constants,
    thermal_displacements,
)
from aiida_autopipe.core.generate.rattle import ATTEMPTS, smallest_distance
from aiida_autopipe.core.generate.strain import mark


def normal_modes(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    repeat: Repeat | None = None,
    width: float = 7.0,
    temperatures_K: Sequence[float] = (100.0, 300.0, 800.0),
    copies: int = 3,
    calculator: BaseCalculator | str | None = None,
    keywords: Mapping[str, Any] | None = None,
    trust: bool = False,
    debye_temperature_K: float | None = None,
) -> list[Atoms]:
    """Supercells displaced along all their phonon modes, with thermal amplitudes and random phases.

    Unlike a rattle, soft modes get large amplitudes and stiff ones small, so that energies are
    those of the crystal at the temperature.

    Args:
        crystal: primitive cell, at rest for the calculator.
        rng: source of randomness.
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        temperatures_K: of the quantum oscillators.
        copies: structures for each temperature.
        calculator: gives forces for finite differences: an ASE calculator, or a surrogate by name,
            file or import path. null takes springs between neighbours with the stiffness of the
            Debye temperature.
        keywords: of the surrogate.
        trust: open the surrogate's file although it can run code (`.model` of MACE).
        debye_temperature_K: of the crystal, for the springs; null takes those of the elements.

    Raises:
        InputError: not a crystal, a temperature below zero, or displacements that let atoms meet.
        EngineError: the calculator cannot be made, or fails.
    """
    check_count("copies", copies)
    for temperature in temperatures_K:
        if not temperature >= 0:
            raise InputError(f"A temperature of {temperature} K is below absolute zero.")
    supercell = repeated(crystal, repeat, width)
    if len(supercell) < 2:
        raise InputError("One atom has no normal modes: repeat the crystal.")
    source = calculator if isinstance(calculator, str) else type(calculator).__name__
    if calculator is None:
        source = "springs"
        constants = spring_force_constants(supercell, spring_constant(crystal, debye_temperature_K))
    else:
        a, b, c = np.round(widths(supercell) / widths(crystal)).astype(int).tolist()
        made = make_calculator(calculator, keywords, trust)
        constants = measured_force_constants(crystal, (a, b, c), made)
    modes = normal_modes_of(constants, supercell.get_masses())
    return [
        mark(
            _displaced(supercell, modes, float(temperature), rng),
            "normal_modes",
            temperature_K=float(temperature),
            copy=copy,
            force_constants=source,
            modes=len(modes.energies),
            unstable_modes=modes.unstable,
        )
        for temperature in temperatures_K
        for copy in range(copies)
    ]


def _displaced(
    supercell: Atoms, modes: Modes, temperature: float, rng: np.random.Generator
) -> Atoms:
    least = 0.65 * smallest_distance(supercell)
    for _ in range(ATTEMPTS):
        moved: Atoms = supercell.copy()
        moved.positions += thermal_displacements(modes, supercell.get_masses(), temperature, rng)
        if smallest_distance(moved) >= least:
            return moved
    raise InputError(
        f"The normal modes of {supercell.get_chemical_formula()} at {temperature} K bring atoms "
        f"closer than {least:.2f} Å: lower the temperature."
    )
