"""Lengths and diversity of the atomic environments of a data set."""

from collections.abc import Iterator
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError

# Beyond this an atom counts as having no neighbour, in Å.
_FARTHEST_NEIGHBOUR = 6.0
_SAMPLED_STRUCTURES = 200


def neighbour_distance(dataset: Dataset) -> float:
    """Median over atoms of the distance to the nearest neighbour, in Å, from up to 50 structures.

    Raises DataError when no atom has a neighbour within 6 Å.
    """
    nearest = []
    for atoms in _sampled(dataset, 50):
        pairs = full_neighbour_list(atoms, _FARTHEST_NEIGHBOUR)
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


def shortest_distances(dataset: Dataset, quantile: float = 0.01) -> dict[tuple[str, str], float]:
    """How close pairs of elements come, in Å: the ``quantile`` of the shortest distances.

    For each pair of elements (alphabetical) the distances from an atom of the one to its nearest
    atom of the other, from up to 200 structures; pairs that never come within 6 Å are left out.
    """
    closest: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for atoms in _sampled(dataset, _SAMPLED_STRUCTURES):
        pairs = full_neighbour_list(atoms, _FARTHEST_NEIGHBOUR)
        lengths = np.linalg.norm(pairs.vectors, axis=1)
        kinds = np.sort(
            np.stack([atoms.numbers[pairs.centre], atoms.numbers[pairs.neighbour]]), axis=0
        )
        for first, second in combinations_with_replacement(np.unique(atoms.numbers).tolist(), 2):
            mine = (kinds[0] == first) & (kinds[1] == second)
            nearest = np.full(len(atoms), np.inf)
            np.minimum.at(nearest, pairs.centre[mine], lengths[mine])
            closest.setdefault((first, second), []).append(nearest[np.isfinite(nearest)])
    result = {}
    for (first, second), parts in closest.items():
        lengths = np.concatenate(parts)
        if lengths.size:
            key = sorted((chemical_symbols[first], chemical_symbols[second]))
            result[key[0], key[1]] = float(np.quantile(lengths, quantile))
    return result


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


def _sampled(dataset: Dataset, most: int) -> Iterator[Atoms]:
    """Evenly spaced structures, about ``most`` of them."""
    step = max(1, len(dataset) // most)
    return (dataset.atoms(index) for index in range(0, len(dataset), step))
