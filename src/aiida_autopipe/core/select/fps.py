"""Farthest-point sampling: each new point is the one farthest from all points taken so far.

The result is exact, but most rows are compared with few of the chosen points. The distance of a row
to the points it was compared with is an upper bound of its distance to all. While one row is known
to be farther, the others need no look. So the rows with the largest bounds are taken into memory,
points are chosen among them until the farthest is no farther than the largest bound of all
others, and the next pass over the pool finds new rows with large bounds. The pool is read a few
times, block by block, however many points are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_autopipe.core.select import kernels
from aiida_autopipe.core.select.rows import (
    Rows,
    TooFewRowsError,
    Values,
    as_rows,
    blocks,
    check_finite,
    check_number,
    check_same_width,
    gather,
)

TABLE = 3000
"""Most points between which distances are kept, 36 MB in float32; beyond, fewer rows are spared."""
SORTED_FROM = 16
"""Fewest points whose order by distance pays."""
ROWS_PER_POINT = 200
"""Fewest rows for each point for which it pays to sort the points by distance."""
ACTIVE_ROWS = (4096, 65_536)
"""Fewest and most rows among which points are chosen between two passes."""
SAMPLE_ROWS = 16_384


def farthest_point(
    features: ArrayLike | Rows | h5py.Dataset,
    n: int,
    already: ArrayLike | Rows | h5py.Dataset | None = None,
    rng: np.random.Generator | None = None,
) -> NDArray[np.int64]:
    """Choose ``n`` rows of ``features`` (pool, d) that are far from each other.

    ``already`` (m, d) holds points that are covered beforehand (the training set): the first choice
    is then the row farthest from them. Without them the first choice is the row farthest from the
    mean, or a random row when ``rng`` is given. Ties go to the lowest index, so without ``rng`` the
    result depends on the input alone. float32 is computed in float32, other numbers in float64.

    The pool may be larger than memory (see `rows`); three numbers for each of its rows are kept.

    Returns exactly ``n`` different rows (n,) in the order of choice. Raises InputError when ``n``
    is negative or larger than the pool, TooFewRowsError (an InputError) when the pool has fewer
    different rows that are not covered, DataError for NaN, infinity or shapes that do not match.

    Source: T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985).
    """
    return spread(features, n, already, rng).chosen


@dataclass(frozen=True, eq=False)
class Spread:
    """Points that are far from each other, and what was learnt about the pool on the way.

    chosen: (n,) rows. centres: (m + n, d), the covered points, then the chosen ones. nearest:
    (pool,) a centre near each row, the nearest as far as it was needed.
    """

    chosen: NDArray[np.int64]
    centres: Values
    nearest: NDArray[np.int32]


def spread(
    features: ArrayLike | Rows | h5py.Dataset,
    n: int,
    already: ArrayLike | Rows | h5py.Dataset | None = None,
    rng: np.random.Generator | None = None,
) -> Spread:
    """As `farthest_point`, with the points themselves and a centre near each row."""
    rows = as_rows(features)
    check_number(n, rows.shape[0])
    covered = None if already is None else as_rows(already, "covered set")
    points = np.empty((0, rows.shape[1]), dtype=rows.dtype)
    if covered is not None and covered.shape[0]:
        check_same_width(rows, covered)
        points = covered.read(0, covered.shape[0]).astype(rows.dtype, copy=False)
        check_finite(points, 0, "covered set")
    search = _Search(rows, points, n)
    if n and not len(points):
        start = _first(rows) if rng is None else int(rng.integers(rows.shape[0]))
        search.choose(start)
    elif rng is not None or n == 0 or len(points):
        for start_row, stop in blocks(rows):
            check_finite(rows.read(start_row, stop), start_row)
    search.run()
    return Spread(search.chosen, search.centres, search.nearest)


def _first(rows: Rows) -> int:
    """The row farthest from the mean; all rows are checked."""
    total = np.zeros(rows.shape[1])
    for start, stop in blocks(rows):
        block = rows.read(start, stop)
        check_finite(block, start)
        total += block.sum(axis=0, dtype=np.float64)
    mean = (total / rows.shape[0]).astype(rows.dtype)[None, :]
    farthest, best = 0, -1.0
    for start, stop in blocks(rows):
        distances = np.empty(stop - start, dtype=rows.dtype)
        kernels.distances_to(rows.read(start, stop), mean, distances)
        top = int(np.argmax(distances))
        if distances[top] > best:
            farthest, best = start + top, float(distances[top])
    return farthest


class _Search:
    """Bounds of all rows and the points chosen so far."""

    def __init__(self, rows: Rows, points: Values, n: int) -> None:
        self.rows, self.n_covered, self.n = rows, len(points), n
        self.centres = np.empty((len(points) + n, rows.shape[1]), dtype=rows.dtype)
        self.centres[: len(points)] = points
        size = min(TABLE, len(self.centres))
        self.apart = np.empty((size, size), dtype=rows.dtype)
        for j in range(len(points)):
            kernels.fill_apart(self.centres, j, self.apart)
        self.bounds = np.full(rows.shape[0], np.inf, dtype=rows.dtype)
        self.nearest = np.full(rows.shape[0], -1, dtype=np.int32)
        self.seen = np.zeros(rows.shape[0], dtype=np.int32)
        self.chosen = np.empty(n, dtype=np.int64)
        self.found = 0
        low, high = ACTIVE_ROWS
        self.capacity = min(max(low, rows.shape[0] // 64), high)

    @property
    def n_centres(self) -> int:
        return self.n_covered + self.found

    def choose(self, row: int) -> None:
        self.centres[self.n_centres] = self.rows.read(row, row + 1)[0]
        kernels.fill_apart(self.centres, self.n_centres, self.apart)
        self.bounds[row], self.nearest[row] = -1.0, self.n_centres
        self.chosen[self.found] = row
        self.found += 1

    def run(self) -> None:
        """Alternate passes over the pool and choices among the rows with the largest bounds."""
        while self.found < self.n:
            active, threshold = self._active()
            points = gather(self.rows, active)
            bounds, nearest, seen = self.bounds[active], self.nearest[active], self.seen[active]
            before = self.n_centres
            rows = np.empty(self.n - self.found, dtype=np.int64)
            after = kernels.take_farthest(
                points, self.centres, before, self.n_covered + self.n, self.apart,
                self.rows.dtype.type(threshold), bounds, nearest, seen, rows,
            )  # fmt: skip
            new = rows[: after - before]
            nearest[new] = np.arange(before, after)
            self.bounds[active], self.nearest[active], self.seen[active] = bounds, nearest, seen
            self.chosen[self.found : self.found + len(new)] = active[new]
            self.found += len(new)
            if not len(new) and self.bounds.max() <= 0:
                raise _too_few(self.n, self.found, self.rows.shape[0], self.n_covered)

    def _active(self) -> tuple[NDArray[np.int64], float]:
        """Rows with the largest bounds, and what no bound of another row exceeds."""
        self._refresh(self._guess())
        if len(self.bounds) <= self.capacity:
            return np.arange(len(self.bounds)), -1.0
        place = len(self.bounds) - self.capacity
        threshold = np.partition(self.bounds, place)[place]
        above = np.flatnonzero(self.bounds > threshold)
        equal = np.flatnonzero(self.bounds == threshold)[: self.capacity - len(above)]
        return np.sort(np.concatenate([above, equal])), float(threshold)

    def _guess(self) -> float:
        """About the distance that only the farthest rows exceed, from an even sample."""
        total = len(self.bounds)
        if total <= self.capacity:
            return -1.0
        step = max(1, total // SAMPLE_ROWS)
        sample = np.arange(0, total, step)
        points = gather(self.rows, sample)
        bounds, nearest, seen = self.bounds[sample], self.nearest[sample], self.seen[sample]
        floor = self.rows.dtype.type(-1.0)
        kernels.refresh_rows(
            points, 0, self.centres, self.n_centres, self.apart, floor, bounds, nearest, seen
        )
        self.bounds[sample], self.nearest[sample], self.seen[sample] = bounds, nearest, seen
        wanted = max(0.0, 1.0 - 0.8 * self.capacity / total)
        return float(np.quantile(bounds, wanted))

    def _refresh(self, floor: float) -> None:
        """Bring every bound to ``floor``, or to the exact distance where that is larger."""
        level, n = self.rows.dtype.type(floor), self.n_centres
        state = self.bounds, self.nearest, self.seen
        sort = SORTED_FROM <= n <= TABLE and len(self.bounds) >= ROWS_PER_POINT * n
        order, reach = by_distance(self.apart[:n, :n] if sort else self.apart[:0, :0])
        for start, stop in blocks(self.rows):
            if self.bounds[start:stop].max() <= level:
                continue
            block = self.rows.read(start, stop)
            if sort:
                kernels.refresh_sorted(block, start, self.centres, n, order, reach, level, *state)
            else:
                kernels.refresh_rows(block, start, self.centres, n, self.apart, level, *state)


def by_distance(apart: Values) -> tuple[NDArray[np.int32], Values]:
    """For each point all points from near to far, and their distances.

    Args:
        apart: (n, n) squared distances.
    """
    order = np.empty(apart.shape, dtype=np.int32)
    for row, distances in zip(order, apart, strict=True):
        row[:] = np.argsort(distances, kind="stable")
    return order, np.sqrt(np.take_along_axis(apart, order, axis=1))


def _too_few(n: int, found: int, pool: int, covered: int) -> TooFewRowsError:
    known = " that differ from the covered set" if covered else ""
    return TooFewRowsError(
        f"Cannot choose {n} points: the pool of {pool} has only {found} different rows{known}; "
        f"ask for at most {found}.",
        found,
    )
