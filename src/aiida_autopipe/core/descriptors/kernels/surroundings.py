"""Numba code that finds the atoms around each atom, without ever holding a list of all pairs.

Atoms are sorted into cells, and by type within a cell. All atoms that may be near one of a cell are
gathered once for the whole cell; each atom of it then measures the way to all of them, four at a
time, and keeps those within the cutoff. An atom is among those around itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.kernels import Floats, Ints
from aiida_autopipe.core.ace.lanes import LANES, inlined, kernel, load, spread, store
from aiida_autopipe.core.ace.pair_kernels import find_images, make_cells, place_inside


class Grid(NamedTuple):
    """Atoms of one structure in cells.

    counts, reach (3,): cells along each direction, and how many to look around; image, turn: see
    `find_images`; box: cell vectors in rows; first (cells * types + 1): of each type in each cell,
    in the sorted lists order (n,), the index of an atom, and points (3, n).
    """

    counts: Ints
    reach: Ints
    image: Ints
    turn: Floats
    box: Floats
    first: Ints
    order: Ints
    points: Floats
    n_types: int


@kernel
def make_grid(
    points: Floats,
    types: Ints,
    n_types: int,
    box: Floats,
    inverse: Floats,
    periodic: NDArray[np.bool_],
    cutoff: float,
) -> Grid:
    """Sort atoms, (n, 3) and their types (n,), into cells."""
    n = len(points)
    inside, fractions = place_inside(points, box, inverse, periodic)
    counts, reach, cells = make_cells(fractions, inverse, periodic, cutoff)
    image, turn = find_images(counts, reach, periodic)
    first = np.zeros(counts[0] * counts[1] * counts[2] * n_types + 1, dtype=np.int64)
    key = np.empty(n, dtype=np.int64)
    for i in range(n):
        cell = (cells[i, 0] * counts[1] + cells[i, 1]) * counts[2] + cells[i, 2]
        key[i] = cell * n_types + types[i]
        first[key[i] + 1] += 1
    first = np.cumsum(first)
    place, order = first[:-1].copy(), np.empty(n, dtype=np.int64)
    ordered = np.empty((3, n))
    for i in range(n):
        at = place[key[i]]
        order[at] = i
        ordered[0, at], ordered[1, at], ordered[2, at] = inside[i, 0], inside[i, 1], inside[i, 2]
        place[key[i]] = at + 1
    return Grid(counts, reach, image, turn, box, first, order, ordered, n_types)


class Near(NamedTuple):
    """Atoms that may be near those of a cell: rows x, y, z and squared distance from the atom that
    looks, (4, room); `begin` (types + 1) is where each type begins, at multiples of LANES."""

    rows: Floats
    begin: Ints


@inlined
def _count_near(grid: Grid, a: int, b: int, c: int) -> int:
    """Room that the atoms around cell a, b, c take."""
    total = 0
    for t in range(grid.n_types):
        for u in range(a, a + 2 * grid.reach[0] + 1):
            if grid.image[0, u] < 0:
                continue
            for v in range(b, b + 2 * grid.reach[1] + 1):
                if grid.image[1, v] < 0:
                    continue
                row = (grid.image[0, u] * grid.counts[1] + grid.image[1, v]) * grid.counts[2]
                for w in range(c, c + 2 * grid.reach[2] + 1):
                    if grid.image[2, w] >= 0:
                        k = (row + grid.image[2, w]) * grid.n_types + t
                        total += grid.first[k + 1] - grid.first[k]
        total = (total + LANES - 1) // LANES * LANES
    return total


@inlined
def gather_near(grid: Grid, cell: int, near: Near) -> Near:
    """The atoms around a cell; the arrays of `near` are taken again where they have the room."""
    a = cell // (grid.counts[1] * grid.counts[2])
    b, c = cell // grid.counts[2] % grid.counts[1], cell % grid.counts[2]
    room = _count_near(grid, a, b, c)
    rows, begin = near.rows, near.begin
    if room > rows.shape[1]:
        rows = np.empty((4, 2 * room))
    points, box, n = grid.points, grid.box, 0
    for t in range(grid.n_types):
        begin[t] = n
        for u in range(a, a + 2 * grid.reach[0] + 1):
            if grid.image[0, u] < 0:
                continue
            for v in range(b, b + 2 * grid.reach[1] + 1):
                if grid.image[1, v] < 0:
                    continue
                row = (grid.image[0, u] * grid.counts[1] + grid.image[1, v]) * grid.counts[2]
                for w in range(c, c + 2 * grid.reach[2] + 1):
                    if grid.image[2, w] < 0:
                        continue
                    i, j, k = grid.turn[0, u], grid.turn[1, v], grid.turn[2, w]
                    x = i * box[0, 0] + j * box[1, 0] + k * box[2, 0]
                    y = i * box[0, 1] + j * box[1, 1] + k * box[2, 1]
                    z = i * box[0, 2] + j * box[1, 2] + k * box[2, 2]
                    group = (row + grid.image[2, w]) * grid.n_types + t
                    for q in range(grid.first[group], grid.first[group + 1]):
                        rows[0, n] = points[0, q] + x
                        rows[1, n] = points[1, q] + y
                        rows[2, n] = points[2, q] + z
                        n += 1
        while n % LANES != 0:
            rows[0, n], rows[1, n], rows[2, n] = np.inf, 0.0, 0.0
            n += 1
    begin[grid.n_types] = n
    return Near(rows, begin)


@inlined
def measure(near: Near, x: float, y: float, z: float, count: int) -> None:
    """Squared distances of the first `count` atoms from a point, into the fourth row."""
    rows, width = near.rows, near.rows.shape[1]
    x0, y0, z0 = spread(x), spread(y), spread(z)
    for at in range(0, count, LANES):
        dx = load(rows, at) - x0
        dy = load(rows, at + width) - y0
        dz = load(rows, at + 2 * width) - z0
        store(rows, at + 3 * width, dx * dx + dy * dy + dz * dz)


@inlined
def pick_close(squares: Floats, begin: int, end: int, limit: float, chosen: Ints) -> Any:
    """Number of entries begin:end of `squares` that are at most `limit`; `chosen` gets which."""
    count = 0
    for q in range(begin, end):
        chosen[count] = q
        count += squares[q] <= limit
    return count
