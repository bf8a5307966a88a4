"""The loops of selection over rows of features.

Distances are squared. Reassociation lets the sum over features run in vector registers; NaN stays
NaN. Everything runs on float32 and on float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Values = NDArray[Any]
Whole = NDArray[np.int32]

LANE_ROWS = 64
"""Rows whose largest distance is remembered together."""

kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})


@kernel
def squared_distance(x: Values, i: int, y: Values, j: int) -> Any:
    """|x_i - y_j|^2."""
    total = x.dtype.type(0.0)
    for k in range(x.shape[1]):
        step = x[i, k] - y[j, k]
        total += step * step
    return total


@kernel
def distances_to(rows: Values, point: Values, out: Values) -> None:
    """Squared distances of all rows to the one row of ``point``."""
    for i in range(rows.shape[0]):
        out[i] = squared_distance(rows, i, point, 0)


@kernel
def fill_apart(centres: Values, j: int, apart: Values) -> None:
    """Squared distances of centre ``j`` to all earlier ones, in the table ``apart`` (limit, limit).

    Centres that the table has no room for are left out.
    """
    if j >= apart.shape[0]:
        return
    for i in range(j + 1):
        apart[i, j] = squared_distance(centres, i, centres, j)
        apart[j, i] = apart[i, j]


@kernel
def refresh(
    rows: Values, i: int, at: int, centres: Values, n: int, apart: Values, floor: Any,
    bounds: Values, nearest: Whole, seen: Whole,
) -> Any:  # fmt: skip
    """Compare row ``i`` with centres it has not seen, until its distance is not above ``floor``.

    ``at`` is its place in ``bounds``, ``nearest`` and ``seen``. A point at distance d from its
    nearest centre cannot be nearer to one that is 2 d or more from that centre. Returns the new
    bound: exact when all ``n`` centres were seen.
    """
    best, mine, known = bounds[at], nearest[at], apart.shape[0]
    j = seen[at]
    while j < n and best > floor:
        if mine < 0 or mine >= known or j >= known or apart[mine, j] < 4 * best:
            distance = squared_distance(rows, i, centres, j)
            if distance < best:
                best, mine = distance, j
        j += 1
    bounds[at], nearest[at], seen[at] = best, mine, j
    return best


@kernel
def refresh_rows(
    rows: Values, start: int, centres: Values, n: int, apart: Values, floor: Any,
    bounds: Values, nearest: Whole, seen: Whole,
) -> None:  # fmt: skip
    """`refresh` for a block of rows that begins at row ``start`` of the pool."""
    for i in range(rows.shape[0]):
        if bounds[start + i] > floor:
            refresh(rows, i, start + i, centres, n, apart, floor, bounds, nearest, seen)


@kernel
def refresh_sorted(
    rows: Values, start: int, centres: Values, n: int, order: Whole, reach: Values, floor: Any,
    bounds: Values, nearest: Whole, seen: Whole,
) -> None:  # fmt: skip
    """As `refresh_rows`, with the centres near that of a row tried first.

    ``order`` and ``reach`` as in `assign`. A row that got to ``floor`` counts as having seen no
    more than before: which centres it has seen is not a number.
    """
    for i in range(rows.shape[0]):
        at = start + i
        best, guess, old = bounds[at], nearest[at], seen[at]
        if best <= floor or old == n:
            continue
        base, mine = np.sqrt(best), guess
        limit = base + base
        for k in range(1, n):
            if reach[guess, k] >= limit:
                break
            j = order[guess, k]
            if j < old:
                continue
            distance = squared_distance(rows, i, centres, j)
            if distance < best:
                best, mine = distance, j
                limit = base + np.sqrt(best)
                if best <= floor:
                    break
        bounds[at], nearest[at] = best, mine
        if best > floor:
            seen[at] = n


@kernel
def _refresh_group(
    rows: Values, group: int, centres: Values, n: int, apart: Values, floor: Any,
    bounds: Values, nearest: Whole, seen: Whole, tops: Values,
) -> tuple[Any, int]:  # fmt: skip
    """Refresh the rows of a group that may be above ``floor``; its largest distance and where."""
    top, row, best = bounds.dtype.type(-1.0), -1, floor
    for i in range(group * LANE_ROWS, min((group + 1) * LANE_ROWS, rows.shape[0])):
        value = bounds[i]
        if value >= best and value >= 0:
            # Just below the floor, so that an equal distance is seen to the end.
            below = np.nextafter(best, bounds.dtype.type(-1.0))
            value = refresh(rows, i, i, centres, n, apart, below, bounds, nearest, seen)
            best = max(best, value)
        if value > top:
            top, row = value, i
    tops[group] = top
    return top, row


@kernel
def take_farthest(
    rows: Values, centres: Values, first: int, last: int, apart: Values, threshold: Any,
    bounds: Values, nearest: Whole, seen: Whole, chosen: NDArray[np.int64],
) -> int:  # fmt: skip
    """Make the farthest of ``rows`` a centre, again and again, while it is above ``threshold``.

    Only rows that may be the farthest are compared with new centres. Centres ``first`` to ``last``
    are filled; ``chosen`` gets the row of each, whose bound becomes -1. Of equal rows the first is
    taken. The first choice may be at the threshold itself. Returns the number of centres.
    """
    groups = (rows.shape[0] + LANE_ROWS - 1) // LANE_ROWS
    tops = np.empty(groups, dtype=bounds.dtype)
    for group in range(groups):
        tops[group] = bounds[group * LANE_ROWS : (group + 1) * LANE_ROWS].max()
    zero = bounds.dtype.type(0.0)
    for n in range(first, last):
        # The most promising group first: it gives a floor that spares most of the others.
        best, row = zero, -1
        promising = int(np.argmax(tops))
        value, where = _refresh_group(
            rows, promising, centres, n, apart, zero, bounds, nearest, seen, tops
        )
        if value > best:
            best, row = value, where
        for group in range(groups):
            if tops[group] < best or group == promising:
                continue
            value, where = _refresh_group(
                rows, group, centres, n, apart, best, bounds, nearest, seen, tops
            )
            if value > best or (value == best and where < row):
                best, row = value, where
        if row < 0 or best < threshold or (best == threshold and n > first):
            return n
        chosen[n - first] = row
        centres[n] = rows[row]
        fill_apart(centres, n, apart)
        bounds[row] = -1.0
    return last


@kernel
def all_apart(points: Values) -> Values:
    """(n, n) squared distances between points."""
    n = points.shape[0]
    apart = np.empty((n, n), dtype=points.dtype)
    for i in range(n):
        for j in range(i + 1):
            apart[i, j] = squared_distance(points, i, points, j)
            apart[j, i] = apart[i, j]
    return apart


@kernel
def assign(rows: Values, centres: Values, order: Whole, reach: Values, labels: Whole) -> int:
    """The nearest centre of each row, from the guess in ``labels``.

    ``order`` (n, n) are for each centre all centres by distance, ``reach`` their distances (not
    squared): a centre that is farther from the guess than the row's distance to the guess and to
    the best so far together cannot be nearer. Returns how many distances were computed.
    """
    computed = 0
    for i in range(rows.shape[0]):
        guess = labels[i]
        best = squared_distance(rows, i, centres, guess)
        mine, base = guess, np.sqrt(best)
        limit = base + base
        for k in range(1, order.shape[1]):
            if reach[guess, k] >= limit:
                break
            j = order[guess, k]
            computed += 1
            distance = squared_distance(rows, i, centres, j)
            if distance < best or (distance == best and j < mine):
                best, mine = distance, j
                limit = base + np.sqrt(best)
        labels[i] = mine
    return computed


@kernel
def assign_all(products: Values, norms: Values, labels: Whole) -> None:
    """The nearest centre of each row, from the products (rows, n) of all pairs.

    ``norms`` are half the squared lengths of the centres: |x - c|^2 is smallest where
    |c|^2 / 2 - x c is.
    """
    n = products.shape[1]
    for i in range(products.shape[0]):
        for j in range(n):
            products[i, j] = norms[j] - products[i, j]
        best = products[i].min()
        for j in range(n):
            if products[i, j] == best:
                labels[i] = j
                break


@kernel
def add_members(
    rows: Values, labels: Whole, sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> None:
    """Add rows and their number to the sums of their clusters."""
    for i in range(rows.shape[0]):
        label = labels[i]
        counts[label] += 1
        for k in range(rows.shape[1]):
            sums[label, k] += rows[i, k]


@kernel
def nearest_members(
    rows: Values, start: int, centroids: Values, labels: Whole, distances: Values,
    best: Values, members: NDArray[np.int64],
) -> None:  # fmt: skip
    """The row of each cluster that is nearest to its centroid; of equals the first.

    ``labels`` and ``distances``, which are filled, are those of the whole pool; ``best`` and
    ``members`` are those of the rows before ``start``.
    """
    for i in range(rows.shape[0]):
        label = labels[start + i]
        distance = squared_distance(rows, i, centroids, label)
        distances[start + i] = distance
        if distance < best[label]:
            best[label] = distance
            members[label] = start + i
