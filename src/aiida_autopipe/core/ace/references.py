"""Energies of the isolated atoms, taken off before a fit."""

from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.cohesive_energies import COHESIVE_ENERGIES
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError

Array = NDArray[np.float64]

# Å; an atom whose images are farther apart is a single atom.
_LONELY = 8.0


def resolve_reference_energies(
    dataset: Dataset, given: Mapping[str, float] | None, predicted: Array | None = None
) -> tuple[dict[str, float], str]:
    """Reference energies in eV by element, and in words where they come from.

    Taken in this order: ``given``; the data set's own attribute; single atoms in the data set,
    alone or with periodic images farther than 8 Å; for elements without them an estimate, the
    least-squares composition energies of the data with the tabulated `COHESIVE_ENERGIES` added.
    ``predicted`` (n,) are energies in eV, without references, of a potential that is to be
    corrected: single atoms and averages are then those of the difference, which is not cohesive.
    Raises InputError when ``given`` or the attribute lacks an element or holds something that is
    not a finite number.

    The estimate is too low by the energy of formation, which is large for ionic compounds. It
    matters for what few data tell: a prior expects of an unknown environment the reference energy,
    of a surface something between it and the bulk.
    """
    elements = dataset.elements
    for source, values in (("given", given), ("data set", dataset.reference_energies)):
        if values:
            missing = [e for e in elements if e not in values]
            if missing:
                raise InputError(
                    f"There is no reference energy for {', '.join(missing)} ({source}: "
                    f"{', '.join(sorted(values))}); give one for every element."
                )
            for element in elements:
                if not np.isfinite(values[element]):
                    raise InputError(
                        f"The reference energy of {element} is {values[element]}; "
                        "it must be a finite number of eV."
                    )
            return {e: float(values[e]) for e in elements}, source
    if dataset.energy is None:
        return dict.fromkeys(elements, 0.0), "none: the data set has no energies"
    energy = np.asarray(dataset.energy[:], dtype=float)
    if predicted is not None:
        energy = energy - predicted
    atoms = _single_atoms(dataset, energy)
    others = [e for e in elements if e not in atoms]
    if not others:
        return atoms, "single atoms in the data set"
    cohesive = COHESIVE_ENERGIES if predicted is None else {}
    averages = _average_energies(dataset, energy, atoms, others, cohesive)
    source = "average of the data set" + (" and cohesive energies" if cohesive else "")
    if not atoms:
        return averages, source
    known = ", ".join(sorted(atoms))
    return atoms | averages, f"single atoms in the data set ({known}), else the {source}"


def _single_atoms(dataset: Dataset, energy: Array) -> dict[str, float]:
    """Energies of structures that are one atom without periodic images nearby, by element."""
    found: dict[str, float] = {}
    for i in np.flatnonzero(dataset.sizes == 1):
        atom = dataset.atoms(int(i))
        if np.isfinite(energy[i]) and not len(full_neighbour_list(atom, _LONELY).centre):
            found[chemical_symbols[atom.numbers[0]]] = float(energy[i])
    return found


def _average_energies(
    dataset: Dataset,
    energy: Array,
    known: Mapping[str, float],
    elements: list[str],
    cohesive: Mapping[str, float],
) -> dict[str, float]:
    """Least-squares energies of ``elements`` in the data (smallest norm where the compositions are
    dependent) and their ``cohesive`` energies, where ``known`` are those of the other atoms."""
    numbers = np.asarray(dataset.numbers[:])

    def shares(element: str) -> Array:
        atoms = (numbers == atomic_numbers[element]).astype(float)
        return np.asarray(np.add.reduceat(atoms, dataset.offsets[:-1]) / dataset.sizes)

    used = np.isfinite(energy)
    per_atom = energy / dataset.sizes
    for element, value in known.items():
        per_atom = per_atom - (value - cohesive.get(element, 0.0)) * shares(element)
    matrix = np.stack([shares(element) for element in elements], axis=1)
    solution = np.linalg.lstsq(matrix[used], per_atom[used], rcond=None)[0]
    return {
        element: float(average) + cohesive.get(element, 0.0)
        for element, average in zip(elements, solution, strict=True)
    }
