"""The first pool of a run: every generator applied to one crystal, mixed and without duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.defects import rattled_vacancies
from aiida_autopipe.core.generate.rattle import rattle
from aiida_autopipe.core.generate.strain import (
    mark,
    scale_volume,
    symmetric_strains,
    volumetric_strains,
)


@dataclass(frozen=True)
class PoolSettings:
    """What `generate_pool` makes; the keys of the configuration's `generate` section.

    Attributes:
        volumetric_strains: relative volume changes of the primitive cell; every second of the
            non-zero ones is also applied to a lightly rattled cell, the first of `rattle_cells`.
        shear_strains: magnitudes of the symmetry-independent uniaxial and shear strains.
        rattle_amplitudes: standard deviations of displacements in Å.
        rattle_cells: repeats of the primitive cell that are rattled.
        rattles_per_amplitude: copies per amplitude and cell.
        rattle_strain: standard deviation of the strain that goes with a rattle.
        vacancies: vacancy structures per inequivalent site, shared between the largest of
            `rattle_cells` and the smallest one with at least four atoms, all rattled.
        max_atoms: no structure may be larger.
    """

    volumetric_strains: Sequence[float] = (-0.12, -0.08, -0.04, -0.02, 0, 0.02, 0.04, 0.08, 0.12)
    shear_strains: Sequence[float] = (-0.04, -0.015, 0.015, 0.04)
    rattle_amplitudes: Sequence[float] = (0.05, 0.1, 0.2, 0.3)
    rattle_cells: Sequence[Sequence[int]] = ((2, 2, 2),)
    rattles_per_amplitude: int = 2
    rattle_strain: float = 0.02
    vacancies: int = 6
    max_atoms: int = 64

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> PoolSettings:
        """Settings from plain values; missing ones take their defaults.

        Raises:
            InputError: an unknown key.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise InputError(
                f"'{unknown[0]}' is not a setting of the generators: use {', '.join(known)}."
            )
        return cls(**settings)


def generate_pool(
    primitive: Atoms, settings: Mapping[str, Any], rng: np.random.Generator
) -> Dataset:
    """Strained, rattled and vacancy structures of one crystal, unlabelled.

    The kinds are interleaved in proportion to their numbers, so the first k structures are a mix
    for every k. Columns: origin (str), parameters (JSON text), generation (0).

    Args:
        primitive: primitive cell.
        settings: fields of `PoolSettings`.
        rng: source of randomness.

    Raises:
        InputError: an unknown setting, a structure above `max_atoms`, or nothing to generate.
    """
    chosen = PoolSettings.from_mapping(settings)
    cells = _rattle_cells(primitive, chosen)
    groups = [
        volumetric_strains(primitive, chosen.volumetric_strains),
        symmetric_strains(primitive, chosen.shear_strains),
        *(_rattles(cell, chosen, rng) for cell in cells),
        _strained_and_rattled(cells[0], chosen, rng),
        *_vacancies(cells, chosen, rng),
    ]
    pool = _without_duplicates(_interleave(groups))
    if not pool:
        raise InputError(
            "The generate section makes no structures: give a strain, rattle amplitude or vacancy."
        )
    columns = {
        "origin": [atoms.info["origin"] for atoms in pool],
        "parameters": [atoms.info["parameters"] for atoms in pool],
        "generation": [0] * len(pool),
    }
    return Dataset.from_atoms(pool, columns=columns)


def _rattle_cells(primitive: Atoms, settings: PoolSettings) -> list[Atoms]:
    """The supercells that are rattled, each once.

    All are repeats of the primitive cell: their k-point meshes then sample the same points, so the
    energies of different cells differ by physics and not by the sampling.
    """
    if len(primitive) > settings.max_atoms:
        raise InputError(
            f"The primitive cell has {len(primitive)} atoms, more than max_atoms = "
            f"{settings.max_atoms}: raise max_atoms or choose a smaller crystal."
        )
    cells: list[Atoms] = []
    for repeats in settings.rattle_cells:
        n_atoms = len(primitive) * int(np.prod(repeats))
        if n_atoms > settings.max_atoms:
            raise InputError(
                f"rattle_cells {list(repeats)} has {n_atoms} atoms, more than max_atoms = "
                f"{settings.max_atoms}: use a smaller repeat or raise max_atoms."
            )
        cell = primitive.repeat(tuple(repeats))
        if not any(_same(cell, other) for other in cells):
            cells.append(cell)
    return cells


def _rattles(cell: Atoms, settings: PoolSettings, rng: np.random.Generator) -> list[Atoms]:
    return [
        atoms
        for amplitude in settings.rattle_amplitudes
        for atoms in rattle(
            cell,
            amplitude,
            settings.rattles_per_amplitude,
            rng,
            strain_amplitude=settings.rattle_strain,
        )
    ]


def _strained_and_rattled(
    cell: Atoms, settings: PoolSettings, rng: np.random.Generator
) -> list[Atoms]:
    """Every second volume of the smallest rattled cell, rattled."""
    if not settings.rattle_amplitudes:
        return []
    amplitude = float(min(settings.rattle_amplitudes))
    structures = []
    for strain in sorted(s for s in settings.volumetric_strains if s != 0)[::2]:
        (drawn,) = rattle(scale_volume(cell, 1.0 + strain), amplitude, 1, rng, strain_amplitude=0.0)
        structures.append(
            mark(drawn, "strain:rattled", strain=float(strain), amplitude_A=amplitude)
        )
    return structures


def _vacancies(
    cells: Sequence[Atoms], settings: PoolSettings, rng: np.random.Generator
) -> list[list[Atoms]]:
    if settings.vacancies <= 0:
        return []
    by_size = sorted((c for c in cells if len(c) > 1), key=len)
    if not by_size:
        raise InputError(
            "Vacancies were asked for, but every cell has one atom only: add a larger repeat to "
            "rattle_cells."
        )
    hosts = [by_size[-1]]
    # A vacancy in a cell of two or three atoms is another crystal, not a defect.
    smaller = [cell for cell in by_size if 4 <= len(cell) < len(hosts[0])]
    hosts += smaller[:1]
    return [
        # The first host takes the odd one.
        rattled_vacancies(
            host,
            settings.rattle_amplitudes,
            (settings.vacancies + len(hosts) - 1 - k) // len(hosts),
            rng,
        )
        for k, host in enumerate(hosts)
    ]


def _interleave(groups: Sequence[Sequence[Atoms]]) -> list[Atoms]:
    """Merge the groups evenly, each in the order of `_spread_order`."""
    placed = []
    for number, group in enumerate(groups):
        for rank, index in enumerate(_spread_order(len(group))):
            placed.append(((rank + 0.5) / len(group), number, group[index]))
    placed.sort(key=lambda item: item[:2])
    return [atoms for _, _, atoms in placed]


def _spread_order(n: int) -> list[int]:
    """0..n-1 in the order of their bit-reversed values (the van der Corput sequence)."""
    bits = max(1, (n - 1).bit_length())
    return sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))


def _without_duplicates(structures: Sequence[Atoms]) -> list[Atoms]:
    kept: list[Atoms] = []
    for atoms in structures:
        if not any(_same(atoms, other) for other in kept):
            kept.append(atoms)
    return kept


def _same(first: Atoms, second: Atoms) -> bool:
    return (
        len(first) == len(second)
        and bool(np.all(first.numbers == second.numbers))
        and np.allclose(first.cell.array, second.cell.array, rtol=0, atol=1e-8)
        and np.allclose(first.positions, second.positions, rtol=0, atol=1e-8)
    )
