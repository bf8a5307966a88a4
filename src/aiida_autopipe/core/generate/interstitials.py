"""Interstitial atoms in the symmetry-distinct voids of a crystal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atom, Atoms
from ase.data import atomic_numbers

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import thermal_amplitude
from aiida_autopipe.core.generate.cells import Repeat, check_count, check_positive, repeated
from aiida_autopipe.core.generate.rattle import rattle
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.generate.voids import find_voids, nearest_neighbour

LEAST_ROOM = 0.55
"""Part of the shortest distance in the crystal that an interstitial keeps from its neighbours: a
little more than the middle of a bond."""


def interstitials(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    elements: Sequence[str] | None = None,
    repeat: Repeat | None = None,
    width: float = 7.0,
    min_distance: float | None = None,
    max_sites: int = 4,
    copies: int = 1,
    amplitude: float | None = None,
    temperature_K: float = 300.0,
) -> list[Atoms]:
    """Supercells with one atom more, in each distinct void: as it is, and rattled.

    Args:
        crystal: primitive cell.
        rng: source of randomness.
        elements: of the interstitial atom; null takes those of the crystal.
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        min_distance: between the atom and its neighbours, Å; null is 0.55 of the shortest distance
            in the crystal.
        max_sites: the largest voids.
        copies: rattled structures for each void and element.
        amplitude: standard deviation of displacements in Å; null is the thermal one.
        temperature_K: of the thermal displacements.

    Raises:
        InputError: an unknown element, not a crystal, or no void that is large enough.
    """
    check_count("copies", copies)
    check_count("max_sites", max_sites, 1)
    host = repeated(crystal, repeat, width)
    if min_distance is None:
        min_distance = LEAST_ROOM * nearest_neighbour(crystal)
    check_positive("min_distance", min_distance)
    voids = find_voids(crystal, min_distance)[:max_sites]
    if not voids:
        raise InputError(
            f"{crystal.get_chemical_formula()} has no void {min_distance:.2f} Å away from its "
            "atoms: lower min_distance."
        )
    if amplitude is None and copies:
        amplitude = thermal_amplitude(crystal, temperature_K)
    structures = []
    for element in _elements(crystal, elements):
        for number, void in enumerate(voids):
            filled: Atoms = host.copy()
            filled.append(Atom(element, void.position))
            filled.wrap()
            place = {
                "element": element,
                "site": number,
                "position_A": [round(float(x), 6) for x in void.position],
                "radius_A": round(void.radius, 4),
                "coordination": void.coordination,
                "multiplicity": void.multiplicity,
            }
            structures.append(mark(filled, "interstitial", **place))
            for copy in range(copies):
                (drawn,) = rattle(filled, float(amplitude or 0), 1, rng, strain_amplitude=0.01)
                structures.append(
                    mark(drawn, "interstitial", **place, amplitude_A=amplitude, copy=copy)
                )
    return structures


def _elements(crystal: Atoms, elements: Sequence[str] | None) -> list[str]:
    if elements is None:
        return sorted(set(crystal.get_chemical_symbols()))
    for symbol in elements:
        if symbol not in atomic_numbers or symbol == "X":
            raise InputError(f"'{symbol}' in elements is no chemical symbol.")
    return list(elements)
