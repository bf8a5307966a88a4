"""Vacancies on the symmetry-inequivalent sites of a cell."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import thermal_amplitude
from aiida_autopipe.core.generate.cells import Repeat, check_count, repeated
from aiida_autopipe.core.generate.rattle import rattle, smallest_distance
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.symmetry import find_symmetry


def vacancies(atoms: Atoms) -> list[Atoms]:
    """The cell with one atom removed, once for each symmetry-inequivalent site; unrelaxed.

    Args:
        atoms: a crystal cell, already repeated; n atoms give structures of n - 1.

    Raises:
        InputError: the cell has one atom only.
    """
    if len(atoms) < 2:
        raise InputError(
            f"A vacancy in a cell of {len(atoms)} atom leaves nothing: repeat the cell first."
        )
    symbols = atoms.symbols
    structures = []
    for site in np.unique(find_symmetry(atoms).equivalent_atoms):
        removed: Atoms = atoms.copy()
        del removed[int(site)]
        structures.append(mark(removed, "vacancy", site=int(site), removed=str(symbols[int(site)])))
    return structures


def vacancy_cells(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    repeat: Repeat | None = None,
    width: float = 7.0,
    copies: int = 3,
    amplitudes: Sequence[float] | None = None,
    temperature_K: float = 300.0,
    ideal: bool = True,
) -> list[Atoms]:
    """Supercells without one atom, for each inequivalent site: as it is, and rattled.

    Args:
        crystal: primitive cell.
        rng: source of randomness.
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        copies: rattled structures for each site.
        amplitudes: standard deviations of displacements in Å, used in turn; null is the thermal
            one of `temperature_K`.
        temperature_K: of the thermal displacements.
        ideal: give the structure without displacements too.

    Raises:
        InputError: one atom in the supercell, not a crystal, or displacements that are too large.
    """
    check_count("copies", copies)
    host = repeated(crystal, repeat, width)
    if amplitudes is None:
        amplitudes = [thermal_amplitude(crystal, temperature_K)]
    return [
        *(vacancies(host) if ideal else []),
        *rattled_vacancies(host, amplitudes, copies, rng),
    ]


def rattled_vacancies(
    atoms: Atoms, amplitudes: Sequence[float], n: int, rng: np.random.Generator
) -> list[Atoms]:
    """n rattled vacancy structures per inequivalent site.

    The ideal vacancy is left out: by symmetry most of its forces vanish or repeat each other.

    Args:
        atoms: a crystal cell, already repeated.
        amplitudes: standard deviations in Å, used in turn.
        n: structures per site; 0 gives none.
        rng: source of randomness.

    Raises:
        InputError: the cell has one atom only, or there is no amplitude.
    """
    if n <= 0:
        return []
    if not amplitudes:
        raise InputError(
            f"{n} vacancies per site need a rattle amplitude, and there is none: "
            "give rattle_amplitudes."
        )
    minimum = 0.65 * smallest_distance(atoms)
    structures = []
    for ideal in vacancies(atoms):
        site = json.loads(ideal.info["parameters"])
        for copy in range(n):
            amplitude = float(amplitudes[copy % len(amplitudes)])
            (drawn,) = rattle(
                ideal, amplitude, 1, rng, strain_amplitude=0.01, minimum_distance=minimum
            )
            structures.append(mark(drawn, "vacancy", **site, amplitude_A=amplitude, copy=copy))
    return structures
