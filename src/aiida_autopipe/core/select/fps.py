"""Farthest-point sampling: each new point is the one farthest from all points taken so far."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from aiida_autopipe.core.errors import DataError, InputError


def farthest_point(
    features: ArrayLike,
    n: int,
    already: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> NDArray[np.int64]:
    """Choose ``n`` rows of ``features`` (pool, d) that are far from each other.

    ``already`` (m, d) holds points that are covered beforehand (the training set): the first choice
    is then the row farthest from them. Without them the first choice is the row farthest from the
    mean, or a random row when ``rng`` is given. Ties go to the lowest index, so without ``rng`` the
    result depends on the input alone. Arrays of float32 are computed in float32, others in float64;
    memory is one float
    and one integer per row beside the input.

    Returns exactly ``n`` distinct indices (n,) in the order of choice. Raises InputError when ``n``
    is negative or larger than the pool, DataError for NaN, infinity or shapes that do not match.

    Source: T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985).
    """
    pool = _as_points("pool", features)
    if not 0 <= n <= len(pool):
        raise InputError(
            f"Cannot choose {n} points from a pool of {len(pool)}; "
            f"ask for a number between 0 and {len(pool)}."
        )
    if n == 0:
        return np.empty(0, dtype=np.int64)
    covered = pool[:0] if already is None else _as_points("covered set", already)
    if len(covered) and covered.shape[1] != pool.shape[1]:
        raise DataError(
            f"The pool has {pool.shape[1]} features but the covered set has {covered.shape[1]}; "
            "compute both with the same descriptor."
        )
    covered = covered.astype(pool.dtype, copy=False)
    if len(covered):
        start = -1
    elif rng is not None:
        start = int(rng.integers(len(pool)))
    else:
        centre = pool.mean(axis=0, dtype=np.float64).astype(pool.dtype)
        start = int(_farthest_from(pool, centre))
    return _choose(pool, n, start, covered)


def _as_points(name: str, values: ArrayLike) -> NDArray[np.floating]:
    """A C-contiguous float32 or float64 (n, d) array without NaN."""
    points = np.asarray(values)
    if points.dtype != np.float32:
        points = points.astype(np.float64)
    if points.ndim != 2:
        raise DataError(
            f"The features of the {name} have shape {points.shape}; two dimensions are needed, "
            "one row per point."
        )
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise DataError(
            f"Row {bad[0]} of the {name} holds NaN or infinity; remove that structure first."
        )
    return np.ascontiguousarray(points)


# Reassociation lets the sum over features run in vector registers; NaN stays NaN.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _squared_distance(x: NDArray[Any], y: NDArray[Any]) -> Any:
    total = x.dtype.type(0.0)
    for k in range(x.size):
        step = x[k] - y[k]
        total += step * step
    return total


@njit(cache=True, nogil=True, fastmath=False)
def _farthest_from(pool: NDArray[np.floating], point: NDArray[np.floating]) -> int:
    best, farthest = 0, -1.0
    for i in range(pool.shape[0]):
        distance = _squared_distance(pool[i], point)
        if distance > farthest:
            best, farthest = i, distance
    return best


@njit(cache=True, nogil=True, fastmath=False)
def _cover(
    pool: NDArray[np.floating],
    centres: NDArray[np.floating],
    last: int,
    distances: NDArray[np.floating],
    nearest: NDArray[np.int64],
) -> int:
    """Add centre ``last``: update nearest centres and squared distances; the index now farthest.

    A point at distance d from its nearest centre cannot be nearer to a new one that is 2 d or more
    from that centre, so most rows need not be read. Negative distances mark rows already taken.
    """
    apart = np.empty(last, dtype=pool.dtype)
    for j in range(last):
        apart[j] = _squared_distance(centres[last], centres[j])
    best, farthest = -1, distances.dtype.type(-1.0)
    for i in range(pool.shape[0]):
        if distances[i] < 0:
            continue
        if last == 0 or apart[nearest[i]] < 4 * distances[i]:
            new = _squared_distance(pool[i], centres[last])
            if new < distances[i]:
                distances[i] = new
                nearest[i] = last
        if distances[i] > farthest:
            farthest = distances[i]
            best = i
    return best


@njit(cache=True, nogil=True, fastmath=False)
def _choose(
    pool: NDArray[np.floating], n: int, start: int, covered: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Take ``start`` (-1: the row farthest from ``covered``), then n - 1 times the farthest row."""
    m = covered.shape[0]
    centres = np.empty((m + n, pool.shape[1]), dtype=pool.dtype)
    centres[:m] = covered
    distances = np.full(pool.shape[0], np.inf, dtype=pool.dtype)
    nearest = np.zeros(pool.shape[0], dtype=np.int64)
    current = start
    for j in range(m):
        current = _cover(pool, centres, j, distances, nearest)
    chosen = np.empty(n, dtype=np.int64)
    for i in range(n):
        chosen[i] = current
        centres[m + i] = pool[current]
        distances[current] = -1.0
        if i + 1 < n:
            current = _cover(pool, centres, m + i, distances, nearest)
    return chosen
