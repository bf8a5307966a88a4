"""What a fit needs to know of its data: labels, reference energies, cutoff, diversity."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError

Array = NDArray[np.float64]

#: Default cutoff in nearest-neighbour distances: beyond the third shell of diamond (1.91), the
#: fifth of fcc (2.24) and the fifth of bcc (2.0). Chosen by cross validation on Si and Li.
CUTOFF_IN_NEIGHBOUR_DISTANCES = 2.3


@dataclass(frozen=True, eq=False)
class FitLabels:
    """Labels of one structure, checked, with the reference energies taken off.

    Attributes:
        energy: eV relative to the isolated atoms.
        forces: (n, 3) in eV/Å, zero where not learnt.
        force_weight: (n,) 0 for the forces not to learn from.
        virial: (6,) volume times stress in eV, ASE sign and order.
        weight: multiplies the squared residuals of this structure.
    """

    energy: float | None
    forces: Array | None
    force_weight: Array
    virial: Array | None
    weight: float


def fit_labels(dataset: Dataset, index: int, reference_energies: Mapping[str, float]) -> FitLabels:
    """The labels of structure ``index``; raises DataError naming the structure for unusable ones.

    An energy or stress of NaN counts as missing, so that data sets with different labels can be
    merged; a structure with forces of which only some are NaN is an error unless they are masked.
    """
    rows = slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))
    size = rows.stop - rows.start
    mask = np.ones(size) if dataset.force_mask is None else np.asarray(dataset.force_mask[rows])
    forces = None if dataset.forces is None else np.asarray(dataset.forces[rows], dtype=float)
    energy = None if dataset.energy is None else float(dataset.energy[index])
    stress = None if dataset.stress is None else np.asarray(dataset.stress[index], dtype=float)
    weight = 1.0 if dataset.weight is None else float(dataset.weight[index])
    if not np.isfinite(weight) or weight < 0:
        raise DataError(f"Structure {index} has the weight {weight}; weights must be >= 0.")
    if not np.isfinite(mask).all() or (mask < 0).any():
        raise DataError(f"Structure {index} has a force_mask that is not between 0 and 1.")
    _refuse_infinite(index, "energy", energy)
    _refuse_infinite(index, "stress", stress)
    energy = None if energy is None or np.isnan(energy) else energy
    stress = None if stress is None or np.isnan(stress).any() else stress
    if forces is not None:
        if forces.shape != (size, 3):
            raise DataError(
                f"Structure {index} has {size} atoms but forces of shape {forces.shape}."
            )
        if np.isnan(forces).all() and size:
            forces = None
        elif not np.isfinite(forces[mask > 0]).all():
            raise DataError(f"Structure {index} has NaN or infinite forces; mask or remove them.")
        else:
            forces = np.where(mask[:, None] > 0, forces, 0.0)
    if energy is None and forces is None and stress is None:
        raise DataError(
            f"Structure {index} has no energy, forces or stress; label it or leave it out."
        )
    if energy is not None:
        symbols = [chemical_symbols[z] for z in dataset.numbers[rows]]
        energy -= sum(reference_energies[s] for s in symbols)
    volume = abs(float(np.linalg.det(dataset.cell[index])))
    virial = stress * volume if stress is not None and np.all(dataset.pbc[index]) else None
    return FitLabels(energy, forces, mask, virial, weight)


def _refuse_infinite(index: int, name: str, value: float | Array | None) -> None:
    if value is not None and np.isinf(value).any():
        raise DataError(f"Structure {index} has an infinite {name}; relabel it or leave it out.")


def resolve_reference_energies(
    dataset: Dataset, given: Mapping[str, float] | None
) -> tuple[dict[str, float], str]:
    """Reference energies in eV by element, and in words where they come from.

    Taken in this order: ``given``; the data set's own attribute; single atoms in the data set; the
    least-squares composition energies (then energies are relative to the average of the data and
    mean nothing for separated atoms). Raises InputError when ``given`` or the attribute lacks an
    element or holds something that is not a finite number.
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
    atoms = _single_atoms(dataset)
    if all(e in atoms for e in elements):
        return atoms, "single atoms in the data set"
    return _average_energies(dataset, elements), "average of the data set"


def _single_atoms(dataset: Dataset) -> dict[str, float]:
    """Energies of structures that are one atom without periodic images, by element."""
    found: dict[str, float] = {}
    if dataset.energy is None:
        return found
    for i in np.flatnonzero(dataset.sizes == 1):
        energy = float(dataset.energy[i])
        if np.isfinite(energy) and not np.any(dataset.pbc[i]):
            found[chemical_symbols[int(dataset.numbers[int(dataset.offsets[i])])]] = energy
    return found


def _average_energies(dataset: Dataset, elements: list[str]) -> dict[str, float]:
    """Least-squares energies per element (smallest norm where the compositions are dependent)."""
    if dataset.energy is None:
        return dict.fromkeys(elements, 0.0)
    energy = np.asarray(dataset.energy[:], dtype=float)
    numbers = np.asarray(dataset.numbers[:])
    counts = np.stack(
        [
            np.add.reduceat((numbers == atomic_numbers[e]).astype(float), dataset.offsets[:-1])
            for e in elements
        ],
        axis=1,
    )
    used = np.isfinite(energy)
    sizes = counts[used].sum(axis=1)
    solution = np.linalg.lstsq(counts[used] / sizes[:, None], energy[used] / sizes, rcond=None)[0]
    return dict(zip(elements, map(float, solution), strict=True))


def neighbour_distance(dataset: Dataset) -> float:
    """Median over atoms of the distance to the nearest neighbour, in Å, from up to 50 structures.

    Raises DataError when no atom has a neighbour within 6 Å.
    """
    step = max(1, len(dataset) // 50)
    nearest = []
    for index in range(0, len(dataset), step):
        atoms = dataset.atoms(index)
        pairs = full_neighbour_list(atoms, 6.0)
        closest = np.full(len(atoms), np.inf)
        np.minimum.at(closest, pairs.centre, np.linalg.norm(pairs.vectors, axis=1))
        nearest.append(closest[np.isfinite(closest)])
    distances = np.concatenate(nearest) if nearest else np.zeros(0)
    if not distances.size:
        raise DataError(
            "No atom of the data has a neighbour within 6 Å, so no cutoff can be derived from it; "
            "give a cutoff."
        )
    return float(np.median(distances))


def default_cutoff(dataset: Dataset) -> float:
    """A cutoff in Å for this material, rounded to 0.1."""
    return round(CUTOFF_IN_NEIGHBOUR_DISTANCES * neighbour_distance(dataset), 1)


def environment_keys(atoms: Atoms, cutoff: float) -> NDArray[np.int64]:
    """(n, 6) integers that are equal for atoms whose neighbour distances agree to about 1e-4.

    Sums over neighbours of powers of a smooth function of the distance, weighted by the root of the
    neighbour's atomic number, after the atom's own number. Angles are not looked at: environments
    that differ in nothing else are so few that a count of distinct ones does not care.
    """
    pairs = full_neighbour_list(atoms, cutoff)
    distance = np.linalg.norm(pairs.vectors, axis=1)
    charges = np.sqrt(atoms.numbers[pairs.neighbour])
    keys = np.zeros((len(atoms), 6))
    keys[:, 0] = atoms.numbers
    smooth = 0.5 * (1.0 + np.cos(np.pi * distance / cutoff))
    for power in range(1, 6):
        sums = np.bincount(pairs.centre, weights=smooth**power * charges, minlength=len(atoms))
        keys[:, power] = 1e4 * sums
    return np.rint(keys).astype(np.int64)


def distinct_environments(dataset: Dataset, cutoff: float, enough: float) -> dict[str, int]:
    """Number of environments by element that differ, counted until each element has ``enough``."""
    seen: dict[int, set[tuple[int, ...]]] = {atomic_numbers[e]: set() for e in dataset.elements}
    for atoms in dataset.iter_atoms():
        for key in map(tuple, environment_keys(atoms, cutoff).tolist()):
            seen[key[0]].add(key)
        if all(len(keys) >= enough for keys in seen.values()):
            break
    return {chemical_symbols[number]: len(keys) for number, keys in seen.items()}
