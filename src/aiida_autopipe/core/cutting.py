"""Cutting the atoms for a new periodic cell out of a larger frame.

The new periodicity brings atoms together at its faces that were far apart. In a crystal whose
lattice fits, they are the same site: of the two atoms on opposite faces (four on edges, eight at
corners) one is kept, also when vibrations put both or neither of them inside. Where the lattice
does not fit, or in a liquid, as many atoms are kept as the density of the frame asks for, and those
that come closest to another are left out first.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.distances import closest_pair

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Two atoms closer than this part of the frame's closest pair are one site.
_SAME_SITE = 0.6
# Atoms farther apart than this part of it do not disturb each other.
_FREE = 0.95


def heights(cell: Array) -> Array:
    """(3,) distances in Å between opposite faces of a cell, vectors in rows."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def cut_out(frame: Atoms, centre: int, cell: Array, core: float) -> tuple[Indices, Array]:
    """The atoms of a cell around an atom of a frame.

    Args:
        frame: structure with a volume along its periodic directions.
        centre: the atom in the middle.
        cell: (3, 3) vectors of the new cell in rows, Å.
        core: distance in Å from the atom in the middle within which every atom is kept.

    Returns:
        (n,) indices in the frame and (n, 3) offsets from the atom in the middle in Å, nearest
        first; images of the frame's atoms count as its atoms.
    """
    pair = closest_pair(frame)
    spacing = 3.0 if pair is None else pair.distance
    source, offsets = _near(frame, centre, cell, 0.5 * spacing)
    fractional = offsets @ np.linalg.inv(cell)
    # How far (Å) beyond the nearest face, negative inside; nothing is cut without periodicity.
    beyond = np.where(frame.pbc, (np.abs(fractional) - 0.5) * heights(cell), -np.inf).max(axis=1)
    beyond = np.where(np.isfinite(beyond), beyond, -1.0)
    protected = np.linalg.norm(offsets, axis=1) <= core
    order = np.lexsort((source, np.round(fractional.sum(axis=1), 9), np.round(beyond, 6)))
    order = np.concatenate([order[protected[order]], order[~protected[order]]])
    kept = _Kept(fractional, cell, frame.pbc)
    for k in order[beyond[order] <= 1e-6]:
        if protected[k] or kept.distance(k) >= _SAME_SITE * spacing:
            kept.add(k)
    target = round(len(frame) * abs(np.linalg.det(cell) / np.linalg.det(frame.cell.complete())))
    for k in order[beyond[order] > 1e-6]:
        if len(kept.chosen) < target and kept.distance(k) >= _SAME_SITE * spacing:
            kept.add(k)
    _thin_out(kept, protected, frame.numbers[source], frame.numbers, target, _FREE * spacing)
    chosen = np.array(kept.chosen)
    nearest = np.lexsort((source[chosen], np.round(np.linalg.norm(offsets[chosen], axis=1), 6)))
    return source[chosen][nearest], offsets[chosen][nearest]


def _near(frame: Atoms, centre: int, cell: Array, margin: float) -> tuple[Indices, Array]:
    """Atoms, images included, in the cell around an atom or less than a margin (Å) outside."""
    vectors = frame.cell.complete().array
    fractional = (frame.positions - frame.positions[centre]) @ np.linalg.inv(vectors)
    fractional -= np.where(frame.pbc, np.round(fractional), 0.0)
    offsets = fractional @ vectors
    limit = 0.5 + margin / heights(cell)
    # No point of the region is farther away than this, in units of the frame's vectors.
    extent = limit @ np.abs(cell @ np.linalg.inv(vectors))
    reach = np.where(frame.pbc, np.ceil(extent + 0.5), 0).astype(int)
    found, places = [], []
    for shift in product(*(range(-n, n + 1) for n in reach)):
        moved = offsets + np.array(shift, dtype=float) @ vectors
        inner = np.abs(moved @ np.linalg.inv(cell))
        inside = np.flatnonzero(((inner <= limit) | ~frame.pbc).all(axis=1))
        found.append(inside)
        places.append(moved[inside])
    return np.concatenate(found), np.concatenate(places)


class _Kept:
    """The atoms chosen so far, and distances to them under the new periodicity."""

    def __init__(self, fractional: Array, cell: Array, pbc: NDArray[np.bool_]) -> None:
        self.chosen: list[int] = []
        self._fractional, self._cell, self._pbc = fractional, cell, pbc

    def add(self, k: int) -> None:
        self.chosen.append(int(k))

    def distances(self, k: int) -> Array:
        """(n,) distances in Å from candidate k to the atoms chosen; inf to itself."""
        chosen = np.array(self.chosen, dtype=int)
        steps = self._fractional[chosen] - self._fractional[k]
        steps -= np.where(self._pbc, np.round(steps), 0.0)
        lengths = np.linalg.norm(steps @ self._cell, axis=1)
        lengths[chosen == k] = np.inf
        return np.asarray(lengths)

    def distance(self, k: int) -> float:
        """The distance to the nearest atom chosen, inf without any."""
        return float(self.distances(k).min(initial=np.inf))


def _thin_out(
    kept: _Kept,
    protected: NDArray[np.bool_],
    numbers: Indices,
    wanted: Indices,
    target: int,
    free: float,
) -> None:
    """Drop atoms outside the core that are closest to another until the number is the target.

    Of two atoms that disturb each other, that of the element with the larger surplus goes, then
    the one that was chosen later.
    """
    while len(kept.chosen) > target:
        nearest = np.array([kept.distance(k) for k in kept.chosen])
        nearest[protected[kept.chosen]] = np.inf
        if not nearest.min() < free:
            return
        closest = np.flatnonzero(nearest <= nearest.min() + 1e-6)
        have, share = Counter(numbers[kept.chosen].tolist()), Counter(wanted.tolist())
        surplus = [
            have[z] / len(kept.chosen) - share[z] / len(wanted)
            for z in numbers[np.array(kept.chosen)[closest]].tolist()
        ]
        worst = max(range(len(closest)), key=lambda i: (round(surplus[i], 9), closest[i]))
        del kept.chosen[int(closest[worst])]
