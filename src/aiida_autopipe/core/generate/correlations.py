r"""How random an alloy is: short-range order of its neighbour shells, all periodic images counted.

The Warren-Cowley parameter of elements i and j in a shell is alpha_ij = 1 - P(j|i) / x_j, with the
probability P(j|i) that a neighbour of an i atom in the shell is a j atom, and the fraction x_j of j
on the sites where the neighbour is. It vanishes in a random alloy (Cowley, Phys. Rev. 77, 669
(1950)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

SHELL_TOLERANCE = 0.01
"""Distances that differ by less, in Å, are one shell."""


@dataclass(frozen=True)
class Shells:
    """Pairs of sites by shell.

    Attributes:
        radii: (S,) distances of the shells, Å.
        tolerance: half width of a shell, Å.
        weights: (S,) 1, 1/2, 1/3 ...
        first, second: (P,) site indices of the pairs, both directions.
        shell: (P,) index of the shell of a pair.
        group: (N,) sublattice of each site, -1 for a site that is not mixed.
    """

    radii: NDArray[np.float64]
    tolerance: float
    weights: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shell: NDArray[np.int64]
    group: NDArray[np.int64]


def find_shells(
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    sublattices: Sequence[NDArray[np.int64]],
    n: int,
) -> Shells:
    """The first n shells between the sites that are mixed.

    Args:
        positions: (N, 3) in Å.
        cell: (3, 3) rows are lattice vectors.
        sublattices: indices of the sites of each sublattice.
        n: shells.

    Raises:
        InputError: no n shells within 25 Å.
    """
    group = np.full(len(positions), -1, dtype=np.int64)
    for number, sites in enumerate(sublattices):
        group[sites] = number
    mixed = np.flatnonzero(group >= 0)
    cutoff = 1.5 * float(np.abs(np.linalg.det(cell)) / len(mixed)) ** (1.0 / 3.0)
    while cutoff < 25.0:
        i, j, d = primitive_neighbor_list(
            "ijd", [True] * 3, cell, positions[mixed], cutoff, self_interaction=False
        )
        radii = _distinct(d)
        # The last shell may be cut in two by the cutoff.
        if len(radii) > n:
            radii = radii[:n]
            distances = np.abs(d[:, None] - radii[None, :])
            shell = np.argmin(distances, axis=1)
            near = distances[np.arange(len(d)), shell] < SHELL_TOLERANCE
            return Shells(
                radii=radii,
                tolerance=SHELL_TOLERANCE,
                weights=1.0 / np.arange(1, n + 1),
                first=mixed[i[near]],
                second=mixed[j[near]],
                shell=shell[near],
                group=group,
            )
        cutoff *= 1.25
    raise InputError(
        f"The sites that are mixed have no {n} neighbour shells: ask for fewer shells."
    )


def _distinct(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(distances)
    starts = np.flatnonzero(np.diff(ordered, prepend=-1.0) > SHELL_TOLERANCE)
    return np.asarray(ordered[starts], dtype=np.float64)


def warren_cowley(
    numbers: NDArray[np.int64], shells: Shells
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Short-range order parameters (S,) of each pair of elements, Z1 < Z2 or equal.

    In sublattices that differ, a shell holds pairs between them too. A shell without pairs of an
    element counts as random.

    Args:
        numbers: (N,) atomic numbers.
        shells: as `find_shells`.
    """
    mixed = shells.group >= 0
    elements = np.unique(numbers[mixed])
    found = {}
    for a, one in enumerate(elements):
        for other in elements[a:]:
            pairs, expected = np.zeros(len(shells.radii)), np.zeros(len(shells.radii))
            for g in range(int(shells.group.max()) + 1):
                on_site = numbers[shells.group == g]
                fraction = float(np.mean(on_site == other))
                starts = (numbers[shells.first] == one) & (shells.group[shells.second] == g)
                hits = starts & (numbers[shells.second] == other)
                pairs += np.bincount(shells.shell[hits], minlength=len(shells.radii))
                counted = np.bincount(shells.shell[starts], minlength=len(shells.radii))
                expected += fraction * counted
            ratio = np.divide(pairs, expected, out=np.ones_like(pairs), where=expected > 0)
            found[(int(one), int(other))] = 1.0 - ratio
    return found


def correlation_error(numbers: NDArray[np.int64], shells: Shells) -> float:
    """Weighted mean over the shells of the mean |alpha| over the pairs of different elements."""
    orders = [np.abs(alpha) for (i, j), alpha in warren_cowley(numbers, shells).items() if i != j]
    return float(np.average(np.mean(orders, axis=0), weights=shells.weights))
