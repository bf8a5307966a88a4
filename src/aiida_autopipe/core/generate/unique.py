"""Structures that are the same up to rotation, reflection, translation and the choice of the cell.

Every atom gets invariants of its surroundings: sums over pairs of neighbours j, k of

    w_a(r_j) w_b(r_k) cos(theta_jk)^l,   l = 0, 1, 2, 3, 4

for each pair of their elements and two radial weights w. Two structures are the same when they
have the same composition and volume for each atom and the same fingerprints, in whatever order.
Nothing is scaled: a copy strained by 0.1 % is another structure. Mirror images, whose energies are
equal, are one. The cost is that of the neighbours squared for each atom, about 0.2 ms; structures
are compared only when composition and volume agree, so it grows with the number of structures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from aiida_autopipe.core.ace.neighbours import full_neighbour_list

CUTOFF = 5.0
"""Radius of the surroundings, Å."""

TOLERANCE = 1e-6
"""Largest difference of two fingerprints of the same surroundings, relative to the largest.

Small, since a shear of a cubic crystal changes its invariants in second order only: those of 0.5 %
by about 1e-5. Copies that were rotated or repeated agree to 1e-12."""

VOLUME_TOLERANCE = 1e-6
"""Largest relative difference of the volumes for each atom."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Composition, volume for each atom (0 without a cell) and invariants (n, F) of the atoms."""

    key: tuple[tuple[int, int], ...]
    volume: float
    numbers: NDArray[np.int64]
    features: NDArray[np.float64]


def unique_structures(structures: Iterable[Atoms]) -> list[Atoms]:
    """The structures without those that are the same as an earlier one, in their order.

    Raises:
        DataError: positions that are not finite or a periodic cell without volume.
    """
    kept: list[Atoms] = []
    seen: dict[tuple[tuple[int, int], ...], list[Fingerprint]] = {}
    for atoms in structures:
        this = fingerprint(atoms)
        alike = seen.setdefault(this.key, [])
        if not any(matches(this, other) for other in alike):
            alike.append(this)
            kept.append(atoms)
    return kept


def is_same(first: Atoms, second: Atoms) -> bool:
    """True when two structures are the same in the sense of this module.

    Raises:
        DataError: as `unique_structures`.
    """
    one, other = fingerprint(first), fingerprint(second)
    return one.key == other.key and matches(one, other)


def fingerprint(atoms: Atoms) -> Fingerprint:
    """What is compared of a structure.

    Raises:
        DataError: as `unique_structures`.
    """
    elements, counts = np.unique(atoms.numbers, return_counts=True)
    periodic = bool(np.all(atoms.pbc))
    # A supercell is the same crystal; a molecule twice is not the same molecule.
    common = gcd(*counts.tolist()) if np.any(atoms.pbc) else 1
    key = tuple((int(z), int(n) // common) for z, n in zip(elements, counts, strict=True))
    volume = atoms.get_volume() / len(atoms) if periodic else 0.0
    neighbours = full_neighbour_list(atoms, CUTOFF)
    order = np.argsort(neighbours.centre, kind="stable")
    vectors = np.asarray(neighbours.vectors)[order]
    kinds = np.searchsorted(elements, atoms.numbers[np.asarray(neighbours.neighbour)[order]])
    ends = np.searchsorted(np.asarray(neighbours.centre)[order], np.arange(len(atoms) + 1))
    features = [_invariants(vectors[a:b], kinds[a:b], len(elements)) for a, b in pairwise(ends)]
    return Fingerprint(key, volume, np.asarray(atoms.numbers), np.array(features))


def matches(first: Fingerprint, second: Fingerprint) -> bool:
    """True when two fingerprints of the same composition agree within the tolerance."""
    if abs(first.volume - second.volume) > VOLUME_TOLERANCE * max(first.volume, second.volume):
        return False
    largest = max(float(np.max(np.abs(first.features))), float(np.max(np.abs(second.features))))
    limit = TOLERANCE * max(largest, 1e-12)
    for number in np.unique(first.numbers):
        one = first.features[first.numbers == number]
        other = second.features[second.numbers == number]
        if not _same_rows(one, other, limit):
            return False
    return True


def _same_rows(one: NDArray[np.float64], other: NDArray[np.float64], limit: float) -> bool:
    """True when each row of one can be paired with a row of the other, as often as it occurs."""
    total = np.lcm(len(one), len(other))
    one = np.repeat(one, total // len(one), axis=0)
    other = np.repeat(other, total // len(other), axis=0)
    far = np.max(np.abs(one[:, None] - other[None]), axis=2) > limit
    if np.any(far.all(axis=1)) or np.any(far.all(axis=0)):
        return False
    rows, columns = linear_sum_assignment(far)
    return not bool(far[rows, columns].any())


def _invariants(
    vectors: NDArray[np.float64], kinds: NDArray[np.int64], n_elements: int
) -> NDArray[np.float64]:
    """Features of one atom; vectors (m, 3) to its neighbours, kinds (m,) of their elements."""
    lengths = np.linalg.norm(vectors, axis=1)
    smooth = 0.5 * (1.0 + np.cos(np.pi * np.minimum(lengths / CUTOFF, 1.0)))
    weights = np.stack([smooth, smooth * (lengths / 2.0) ** 2 * np.exp(-((lengths / 2.0) ** 2))])
    by_element = np.zeros((n_elements, 2, len(lengths)))
    by_element[kinds, :, np.arange(len(lengths))] = weights.T
    rows = by_element.reshape(2 * n_elements, len(lengths))
    directions = vectors / np.maximum(lengths, 1e-12)[:, None]
    cosines = directions @ directions.T
    pairs = np.triu_indices(len(rows))
    powers: Sequence[NDArray[np.float64]] = [cosines**power for power in range(1, 5)]
    angular = [(rows @ power @ rows.T)[pairs] for power in powers]
    # Square roots: features grow like the number of neighbours, not its square.
    sums = [np.sign(v) * np.sqrt(np.abs(v)) for v in angular]
    return np.concatenate([rows.sum(axis=1), *sums])
