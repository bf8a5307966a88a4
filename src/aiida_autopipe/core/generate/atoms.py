"""Isolated atoms, whose energies are the reference energies of a potential."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.strain import mark


def isolated_atoms(elements: Sequence[str], box: float = 12.0) -> list[Atoms]:
    """One atom per element in the middle of an empty cubic box, not periodic.

    Args:
        elements: chemical symbols; duplicates are dropped, the result is alphabetical.
        box: edge in Å, for programs that need a cell.

    Raises:
        InputError: an unknown symbol or a box without volume.
    """
    if not box > 0:
        raise InputError(f"The box of an isolated atom must have a positive edge, not {box} Å.")
    unknown = sorted(set(elements) - set(atomic_numbers))
    if unknown:
        raise InputError(f"'{unknown[0]}' is not a chemical symbol.")
    return [
        mark(
            Atoms(symbol, positions=[[box / 2] * 3], cell=np.eye(3) * box, pbc=False),
            "isolated_atom",
            element=symbol,
            box_A=float(box),
        )
        for symbol in sorted(set(elements))
    ]
