"""How close two atoms may be: sums of their covalent radii."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from aiida_autopipe.core.errors import InputError


def bond_length(one: str, other: str) -> float:
    """Sum of the covalent radii in Å (Cordero et al., Dalton Trans. 2008, 2832).

    Those of metals are close to half the distance in the metal. Elements that the table leaves out
    have 0.2 Å in ASE, which is no radius.

    Raises:
        InputError: an element without a radius.
    """
    total = 0.0
    for symbol in (one, other):
        radius = float(covalent_radii[atomic_numbers[symbol]])
        if radius <= 0.2:
            raise InputError(f"No covalent radius of {symbol} is known: give distances.")
        total += radius
    return total


def check_elements(symbols: Iterable[str]) -> list[str]:
    """The symbols, alphabetical and each once.

    Raises:
        InputError: no symbol, or one that is no element.
    """
    found = sorted(set(symbols))
    if not found:
        raise InputError("There is no element: give some, or a structure that has them.")
    for symbol in found:
        if symbol not in atomic_numbers or symbol == "X":
            raise InputError(f"'{symbol}' is no chemical symbol.")
    return found


def element_pairs(crystal: Atoms, elements: Sequence[str] | None) -> list[tuple[str, str]]:
    """Every pair of the elements, those of the crystal where none are given.

    Raises:
        InputError: as `check_elements`.
    """
    symbols = crystal.get_chemical_symbols() if elements is None else elements
    found = check_elements(symbols)
    return [(one, other) for k, one in enumerate(found) for other in found[k:]]


def spaced(shortest: float, longest: float, n: int) -> list[float]:
    """n distances, closer to each other where they are short: each a fixed factor longer."""
    if not 0 < shortest < longest:
        raise InputError(
            f"Distances go from the shortest to the longest, not from {shortest} to {longest}."
        )
    return [round(float(d), 6) for d in np.geomspace(shortest, longest, n)]
