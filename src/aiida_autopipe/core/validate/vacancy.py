"""Vacancy formation energy of an elemental crystal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.defects import vacancies
from aiida_autopipe.core.generate.strain import mark


def vacancy_structures(atoms: Atoms, repeat: Sequence[int]) -> list[Atoms]:
    """The perfect supercell, and the same cell with one atom removed (unrelaxed).

    With several inequivalent sites the first one is emptied.

    Args:
        atoms: an elemental crystal at its equilibrium volume.
        repeat: (3,) repetitions of the cell.

    Raises:
        InputError: a compound (the energy then depends on chemical potentials), or a supercell of
            one atom.
    """
    elements = sorted(set(atoms.get_chemical_symbols()))
    if len(elements) > 1:
        raise InputError(
            f"The vacancy formation energy is defined here for one element, not for "
            f"{'-'.join(elements)}: leave it out of the properties."
        )
    supercell = atoms.repeat(tuple(int(r) for r in repeat))
    perfect = mark(supercell, "validate:bulk", repeat=[int(r) for r in repeat])
    vacancy = vacancies(supercell)[0]
    vacancy.info["origin"] = "validate:vacancy"
    return [perfect, vacancy]


def vacancy_formation_energy(e_vacancy: float, e_bulk_per_atom: float, n_atoms: int) -> float:
    """E_vacancy - n e_bulk in eV, for a vacancy cell that holds n atoms at fixed bulk volume."""
    return float(np.float64(e_vacancy) - n_atoms * np.float64(e_bulk_per_atom))
