"""Numba kernel of the neighbour list: atoms are sorted into cells no wider than the cutoff, so that
the neighbours of an atom are in its own cell and the few around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.kernels import Floats, Ints
from aiida_autopipe.core.ace.lanes import inlined, kernel

# More within the cutoff of one atom are a mistake in the unit of lengths: a tenth of it is dense.
MOST_NEIGHBOURS = 20_000

# Fewer in a cell cost more to walk through than they spare.
_ATOMS_IN_CELL = 6


@inlined
def place_inside(points: Floats, box: Floats, inverse: Floats, periodic: NDArray[np.bool_]) -> Any:
    """Points moved into the cell along periodic directions, and their fractional coordinates."""
    n = len(points)
    inside, fractions = np.empty((n, 3)), np.empty((n, 3))
    for i in range(n):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for k in range(3):
            fractions[i, k] = x * inverse[0, k] + y * inverse[1, k] + z * inverse[2, k]
        for k in range(3):
            if periodic[k]:
                turns = np.floor(fractions[i, k])
                fractions[i, k] -= turns
                x -= turns * box[k, 0]
                y -= turns * box[k, 1]
                z -= turns * box[k, 2]
        inside[i, 0], inside[i, 1], inside[i, 2] = x, y, z
    return inside, fractions


@inlined
def make_cells(
    fractions: Floats, inverse: Floats, periodic: NDArray[np.bool_], cutoff: float
) -> Any:
    """Number of cells (3,), how many to look around (3,), and the cell of every point (n, 3)."""
    n = len(fractions)
    counts, reach = np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    lowest, span, height = np.zeros(3), np.ones(3), np.empty(3)
    for k in range(3):
        height[k] = 1.0 / np.sqrt((inverse[:, k] ** 2).sum())
        if not periodic[k]:
            lowest[k] = fractions[:, k].min()
            span[k] = max(fractions[:, k].max() - lowest[k], 1e-12)
    volume = span[0] * span[1] * span[2] / abs(np.linalg.det(inverse))
    width = max(0.25 * cutoff, (_ATOMS_IN_CELL * volume / n) ** (1.0 / 3.0))
    for k in range(3):
        length, least = span[k] * height[k], np.inf
        for count in range(1, int(min(max(1.0, length / width), float(n))) + 1):
            # Of what is looked through as many times the length of this direction.
            around = np.ceil(cutoff * count / length)
            if (2.0 * around + 1.0) / count < least:
                least = (2.0 * around + 1.0) / count
                counts[k] = count
    # Flat or lengthy arrangements of points would have more.
    while counts[0] * counts[1] * counts[2] > 2 * n:
        counts[np.argmax(counts)] //= 2
    cells = np.empty((n, 3), dtype=np.int64)
    for k in range(3):
        if periodic[k] or counts[k] > 1:
            reach[k] = int(np.ceil(cutoff * counts[k] / (span[k] * height[k])))
        for i in range(n):
            cell = int((fractions[i, k] - lowest[k]) / span[k] * counts[k])
            cells[i, k] = min(max(cell, 0), counts[k] - 1)
    return counts, reach, cells


@inlined
def _sort(counts: Ints, cells: Ints) -> Any:
    """First entry of every cell in the list of points sorted by cell, and that list."""
    n = len(cells)
    first = np.zeros(counts[0] * counts[1] * counts[2] + 1, dtype=np.int64)
    key = np.empty(n, dtype=np.int64)
    for i in range(n):
        key[i] = (cells[i, 0] * counts[1] + cells[i, 1]) * counts[2] + cells[i, 2]
        first[key[i] + 1] += 1
    first = np.cumsum(first)
    place, order = first[:-1].copy(), np.empty(n, dtype=np.int64)
    for i in range(n):
        order[place[key[i]]] = i
        place[key[i]] += 1
    return first, order


@inlined
def _grown(centre: Ints, neighbour: Ints, vectors: Floats) -> Any:
    """The same arrays, twice as long."""
    size = len(centre)
    more = np.empty(2 * size, dtype=np.int64), np.empty(2 * size, dtype=np.int64)
    longer = np.empty((2 * size, 3))
    more[0][:size], more[1][:size], longer[:size] = centre, neighbour, vectors
    return more[0], more[1], longer


@inlined
def find_images(counts: Ints, reach: Ints, periodic: NDArray[np.bool_]) -> Any:
    """By direction and reach + index of a cell, from -reach to counts + reach: the cell that it is
    an image of (-1: none) and how many cell vectors away that is."""
    longest = (counts + 2 * reach).max()
    cell, turn = np.empty((3, longest), dtype=np.int64), np.zeros((3, longest))
    for k in range(3):
        for a in range(counts[k] + 2 * reach[k]):
            turns = (a - reach[k]) // counts[k]
            cell[k, a] = a - reach[k] - turns * counts[k]
            turn[k, a] = turns
            if turns != 0 and not periodic[k]:
                cell[k, a] = -1
    return cell, turn


@inlined
def _add_pairs(
    i: int,
    inside: Floats,
    box: Floats,
    limit: float,
    cells: Ints,
    counts: Ints,
    reach: Ints,
    image: Ints,
    turn: Floats,
    first: Ints,
    order: Ints,
    ordered: Floats,
    neighbour: Ints,
    vectors: Floats,
    count: int,
    last: int,
) -> int:
    """Write the neighbours of point i from `count` on, up to `last`; returns where they end."""
    x, y, z = inside[i, 0], inside[i, 1], inside[i, 2]
    for a in range(cells[i, 0], cells[i, 0] + 2 * reach[0] + 1):
        if image[0, a] < 0:
            continue
        for b in range(cells[i, 1], cells[i, 1] + 2 * reach[1] + 1):
            if image[1, b] < 0:
                continue
            row = (image[0, a] * counts[1] + image[1, b]) * counts[2]
            bx = turn[0, a] * box[0, 0] + turn[1, b] * box[1, 0] - x
            by = turn[0, a] * box[0, 1] + turn[1, b] * box[1, 1] - y
            bz = turn[0, a] * box[0, 2] + turn[1, b] * box[1, 2] - z
            for c in range(cells[i, 2], cells[i, 2] + 2 * reach[2] + 1):
                if image[2, c] < 0:
                    continue
                cell, turn_c = row + image[2, c], turn[2, c]
                dx, dy = bx + turn_c * box[2, 0], by + turn_c * box[2, 1]
                dz = bz + turn_c * box[2, 2]
                here = turn[0, a] == 0 and turn[1, b] == 0 and turn_c == 0
                for q in range(first[cell], first[cell + 1]):
                    u, v, w = ordered[q, 0] + dx, ordered[q, 1] + dy, ordered[q, 2] + dz
                    if u * u + v * v + w * w < limit and not (here and order[q] == i):
                        if count == last:
                            return count
                        neighbour[count] = order[q]
                        vectors[count, 0], vectors[count, 1], vectors[count, 2] = u, v, w
                        count += 1
    return count


@kernel
def find_pairs(
    points: Floats, box: Floats, inverse: Floats, periodic: NDArray[np.bool_], cutoff: float
) -> Any:
    """All ordered pairs of points (n, 3) closer than `cutoff`, images included: centre, neighbour
    (P,), centres ascending, and vectors (P, 3); and the first point with more than MOST_NEIGHBOURS,
    where the search ends, -1 for none. `box` has the cell vectors in rows."""
    inside, fractions = place_inside(points, box, inverse, periodic)
    counts, reach, cells = make_cells(fractions, inverse, periodic, cutoff)
    first, order = _sort(counts, cells)
    image, turn = find_images(counts, reach, periodic)
    ordered = inside[order]
    most = (2 * reach[0] + 1) * (2 * reach[1] + 1) * (2 * reach[2] + 1) * np.diff(first).max()
    most = min(most, MOST_NEIGHBOURS + 1)
    size, count, crowded = 32 * len(points) + most, 0, -1
    centre, neighbour = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    vectors = np.empty((size, 3))
    for i in range(len(points)):
        if count + most > size:
            centre, neighbour, vectors = _grown(centre, neighbour, vectors)
            size = len(centre)
        end = _add_pairs(
            i,
            inside,
            box,
            cutoff * cutoff,
            cells,
            counts,
            reach,
            image,
            turn,
            first,
            order,
            ordered,
            neighbour,
            vectors,
            count,
            count + most,
        )
        centre[count:end] = i
        if end - count > MOST_NEIGHBOURS:
            crowded = i
            break
        count = end
    return centre[:count], neighbour[:count], vectors[:count], crowded
