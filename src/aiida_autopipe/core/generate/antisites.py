"""Antisites: atoms of a compound on the sites of another element, and exchanged neighbours."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import thermal_amplitude
from aiida_autopipe.core.generate.cells import Repeat, check_count, repeated
from aiida_autopipe.core.generate.rattle import rattle
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.symmetry import find_symmetry


def antisites(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    repeat: Repeat | None = None,
    width: float = 7.0,
    exchanges: bool = True,
    copies: int = 1,
    amplitude: float | None = None,
    temperature_K: float = 300.0,
) -> list[Atoms]:
    """Supercells with one atom of the wrong element, for each inequivalent site and element.

    Args:
        crystal: primitive cell of a compound.
        rng: source of randomness.
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        exchanges: exchange the nearest atoms of each two elements too, which keeps the composition.
        copies: rattled structures for each of these.
        amplitude: standard deviation of displacements in Å; null is the thermal one.
        temperature_K: of the thermal displacements.

    Raises:
        InputError: a crystal of one element, or no crystal.
    """
    check_count("copies", copies)
    elements = sorted(set(crystal.get_chemical_symbols()))
    if len(elements) < 2:
        raise InputError(
            f"{crystal.get_chemical_formula()} has one element only, so there are no antisites: "
            "leave them out."
        )
    host = repeated(crystal, repeat, width)
    ideal = [*_wrong_atoms(host, elements), *(_exchanges(host, elements) if exchanges else [])]
    if amplitude is None and copies:
        amplitude = thermal_amplitude(crystal, temperature_K)
    structures = []
    for atoms, origin, parameters in ideal:
        structures.append(mark(atoms, origin, **parameters))
        for copy in range(copies):
            (drawn,) = rattle(atoms, float(amplitude or 0), 1, rng, strain_amplitude=0.01)
            structures.append(mark(drawn, origin, **parameters, amplitude_A=amplitude, copy=copy))
    return structures


_Ideal = tuple[Atoms, str, dict[str, object]]


def _wrong_atoms(host: Atoms, elements: list[str]) -> list[_Ideal]:
    symbols = host.get_chemical_symbols()
    found: list[_Ideal] = []
    for site in np.unique(find_symmetry(host).equivalent_atoms).tolist():
        for element in elements:
            if element == symbols[site]:
                continue
            changed: Atoms = host.copy()
            changed.symbols[site] = element
            parameters = {"site": site, "replaced": symbols[site], "element": element}
            found.append((changed, "antisite", parameters))
    return found


def _exchanges(host: Atoms, elements: list[str]) -> list[_Ideal]:
    found: list[_Ideal] = []
    for k, one in enumerate(elements):
        for other in elements[k + 1 :]:
            i, j = _nearest_pair(host, one, other)
            changed: Atoms = host.copy()
            changed.symbols[i], changed.symbols[j] = other, one
            parameters: dict[str, object] = {"sites": [i, j], "elements": [one, other]}
            found.append((changed, "antisite:exchange", parameters))
    return found


def _nearest_pair(host: Atoms, one: str, other: str) -> tuple[int, int]:
    symbols: NDArray[np.str_] = np.array(host.get_chemical_symbols())
    cutoff = 3.0
    while True:
        neighbours = full_neighbour_list(host, cutoff)
        wanted = (symbols[neighbours.centre] == one) & (symbols[neighbours.neighbour] == other)
        if wanted.any():
            # Rounded, so that of equal pairs the first is taken on every machine.
            lengths = np.linalg.norm(neighbours.vectors[wanted], axis=1).round(6)
            i, j = neighbours.centre[wanted], neighbours.neighbour[wanted]
            first = np.lexsort((j, i, lengths))[0]
            return int(i[first]), int(j[first])
        cutoff *= 1.5
