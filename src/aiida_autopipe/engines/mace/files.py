"""Labelled structures to the extxyz files that MACE reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.engines.mace.arguments import ENERGY_KEY, FORCES_KEY, STRESS_KEY

FEWEST = 2
"""Structures without which there is nothing to learn from and nothing to validate with."""


@dataclass(frozen=True)
class Usable:
    """Structures MACE can learn from, and one sentence for each kind that was left out."""

    dataset: Dataset
    notes: tuple[str, ...]


def usable(dataset: Dataset, masked: str, cutoff: float, what: str) -> Usable:
    """Leave out what MACE has no word for.

    Structures with a force mask, because MACE weights whole structures only, single atoms without
    neighbours, whose energy is the reference energy, and structures without any label.

    Args:
        dataset: labelled structures.
        masked: 'drop' or 'refuse'.
        cutoff: radius in Å within which an atom has neighbours.
        what: how errors and notes call the data.

    Raises:
        InputError: masked structures with masked='refuse'.
        DataError: fewer than two structures are left.
    """
    reasons: dict[str, list[int]] = {"a force mask": [], "a single atom": [], "no label": []}
    kept = []
    for index, atoms in enumerate(dataset.iter_atoms()):
        labels = dataset.labels(index)
        if labels.force_mask is not None and (labels.force_mask == 0).any():
            reasons["a force mask"].append(index)
        elif labels.energy is None and labels.forces is None and labels.stress is None:
            reasons["no label"].append(index)
        elif len(atoms) == 1 and not len(full_neighbour_list(atoms, cutoff).centre):
            reasons["a single atom"].append(index)
        else:
            kept.append(index)
    if reasons["a force mask"] and masked == "refuse":
        raise InputError(
            f"Structure {reasons['a force mask'][0]} of the {what} data has a force mask, but MACE "
            "weights whole structures only; leave such structures out (masked: drop)."
        )
    if len(kept) < FEWEST:
        raise DataError(
            f"Of the {len(dataset)} structures of the {what} data MACE can use {len(kept)}, it "
            f"needs at least {FEWEST} (left out: {_told(reasons) or 'none'})."
        )
    notes = [
        f"{len(indices)} structures of the {what} data with {reason} are left out."
        for reason, indices in reasons.items()
        if indices
    ]
    chosen = dataset if len(kept) == len(dataset) else dataset[kept]
    return Usable(chosen, tuple(notes))


def _told(reasons: dict[str, list[int]]) -> str:
    return ", ".join(f"{len(found)} with {name}" for name, found in reasons.items() if found)


def held_out(
    n: int, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (sorted) to learn from and to validate with; at least one of each for n >= 2."""
    order = rng.permutation(n)
    size = min(n - 1, max(1, round(fraction * n)))
    return np.sort(order[size:]), np.sort(order[:size])


def write_xyz(dataset: Dataset, path: Path) -> None:
    """Write structures with labels and weights under the names MACE looks for.

    Energies in eV, forces in eV/Å, stresses (six numbers, ASE's sign) in eV/Å^3. A label that is
    missing is left out, and MACE then gives it no weight. The weight of a structure is
    `config_weight`.
    """
    write(path, [_frame(dataset, index) for index in range(len(dataset))], format="extxyz")


def _frame(dataset: Dataset, index: int) -> Atoms:
    source, labels = dataset.atoms(index), dataset.labels(index)
    atoms = Atoms(source.numbers, source.positions, cell=source.cell, pbc=source.pbc)
    if labels.energy is not None:
        atoms.info[ENERGY_KEY] = labels.energy
    if labels.forces is not None:
        if not np.isfinite(labels.forces).all():
            raise DataError(f"Structure {index} has forces that are not finite; leave it out.")
        atoms.arrays[FORCES_KEY] = labels.forces
    if labels.stress is not None:
        atoms.info[STRESS_KEY] = labels.stress
    if labels.weight != 1.0:
        atoms.info["config_weight"] = float(labels.weight)
    return atoms
