r"""How far heat displaces atoms: Debye's model with the Debye temperatures of the elements.

The mean square displacement along one axis of an atom of mass m is (Willis and Pryor, *Thermal
Vibrations in Crystallography*, Cambridge 1975, eq. 5.24)

    <u^2> = 3 hbar^2 / (m k D) * [1/4 + (T/D)^2 \int_0^{D/T} x / (e^x - 1) dx]

with the Debye temperature D. Far above D it is kT / (m k^2 D^2 / 3 hbar^2), the displacement of an
Einstein oscillator with that spring constant. In a compound, each atom has the mean spring
constant of its elements and its own mass, which is good to a factor of two: give the Debye
temperature where it is known.
"""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from scipy.integrate import quad

from aiida_autopipe.core.distances import closest_pair
from aiida_autopipe.core.errors import InputError

LINDEMANN = 0.15
"""Crystals melt before the root mean square displacement is this part of the shortest distance."""

HBAR_SQUARED = (units._hbar * units.J * units.s) ** 2
"""In (eV × ASE's time)^2 = eV Å^2 u."""

# fmt: off
DEBYE_TEMPERATURES_K = {
    "Li": 344, "Be": 1440, "C": 2230, "Ne": 75, "Na": 158, "Mg": 400, "Al": 428, "Si": 645,
    "Ar": 92, "K": 91, "Ca": 230, "Sc": 360, "Ti": 420, "V": 380, "Cr": 630, "Mn": 410, "Fe": 470,
    "Co": 445, "Ni": 450, "Cu": 343, "Zn": 327, "Ga": 320, "Ge": 374, "As": 282, "Se": 90,
    "Kr": 72, "Rb": 56, "Sr": 147, "Y": 280, "Zr": 291, "Nb": 275, "Mo": 450, "Ru": 600, "Rh": 480,
    "Pd": 274, "Ag": 225, "Cd": 209, "In": 108, "Sn": 200, "Sb": 211, "Te": 153, "Xe": 64,
    "Cs": 38, "Ba": 110, "La": 142, "Gd": 200, "Dy": 210, "Yb": 120, "Lu": 210, "Hf": 252,
    "Ta": 240, "W": 400, "Re": 430, "Os": 500, "Ir": 420, "Pt": 240, "Au": 165, "Hg": 71.9,
    "Tl": 78.5, "Pb": 105, "Bi": 119, "Th": 163, "U": 207,
}
"""Of the elements at low temperature (C. Kittel, *Introduction to Solid State Physics*, table of
Debye temperatures and thermal conductivities)."""
# fmt: on


def thermal_amplitude(
    crystal: Atoms, temperature_K: float, debye_temperature_K: float | None = None
) -> float:
    """Standard deviation of a displacement component in Å, the mean over the atoms.

    It is at most what melts the crystal: a root mean square displacement of 0.15 of the shortest
    distance (Lindemann).

    Args:
        crystal: a crystal.
        temperature_K: at 0 the zero-point motion remains.
        debye_temperature_K: of the crystal; None takes those of the elements.

    Raises:
        InputError: a temperature that is not possible, or no element whose Debye temperature is
            known.
    """
    spring = spring_constant(crystal, debye_temperature_K)
    squares = [mean_square(spring, float(m), temperature_K) for m in crystal.get_masses()]
    amplitude = math.sqrt(float(np.mean(squares)))
    nearest = closest_pair(crystal, within=4.0)
    limit = math.inf if nearest is None else LINDEMANN * nearest.distance / math.sqrt(3.0)
    return min(amplitude, limit)


def spring_constant(crystal: Atoms, debye_temperature_K: float | None = None) -> float:
    """Spring constant in eV/Å^2 of an atom, m (k D / hbar)^2 / 3, the mean over the atoms.

    Raises:
        InputError: as `thermal_amplitude`.
    """
    if debye_temperature_K is not None:
        if not debye_temperature_K > 0:
            raise InputError(f"debye_temperature_K must be above zero, not {debye_temperature_K}.")
        return _spring(float(np.mean(crystal.get_masses())), debye_temperature_K)
    known = [
        _spring(float(atomic_masses[atomic_numbers[symbol]]), DEBYE_TEMPERATURES_K[symbol])
        for symbol in crystal.get_chemical_symbols()
        if symbol in DEBYE_TEMPERATURES_K
    ]
    if not known:
        raise InputError(
            f"No Debye temperature is known for the elements of {crystal.get_chemical_formula()}: "
            "give debye_temperature_K or amplitudes."
        )
    return float(np.mean(known))


def mean_square(spring: float, mass: float, temperature_K: float) -> float:
    """Mean square displacement along one axis, Å^2, in Debye's model.

    Args:
        spring: in eV/Å^2, as `spring_constant`.
        mass: in u.
        temperature_K: at least 0.

    Raises:
        InputError: a temperature below zero.
    """
    if not temperature_K >= 0:
        raise InputError(f"A temperature of {temperature_K} K is below absolute zero.")
    debye = math.sqrt(3.0 * spring * HBAR_SQUARED / mass)  # k D in eV
    thermal = 0.0
    if temperature_K > 0:
        kT = units.kB * temperature_K
        # Beyond 40 the integrand is below 1e-15.
        integral, _ = quad(lambda x: x / math.expm1(x) if x else 1.0, 0.0, min(debye / kT, 40.0))
        thermal = (kT / debye) ** 2 * integral
    return 3.0 * HBAR_SQUARED / (mass * debye) * (0.25 + thermal)


def _spring(mass: float, debye_temperature_K: float) -> float:
    return mass * (units.kB * debye_temperature_K) ** 2 / (3.0 * HBAR_SQUARED)
