"""Farthest-point sampling: each new point is the one farthest from all points taken so far."""

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
    memory is one float per row beside the input.

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
    distances = np.full(len(pool), np.inf, dtype=pool.dtype)
    covered = None if already is None else _as_points("covered set", already)
    if covered is not None and len(covered):
        if covered.shape[1] != pool.shape[1]:
            raise DataError(
                f"The pool has {pool.shape[1]} features but the covered set has "
                f"{covered.shape[1]}; compute both with the same descriptor."
            )
        covered = covered.astype(pool.dtype, copy=False)
        start = _cover_all(pool, covered, distances)
    elif rng is not None:
        start = int(rng.integers(len(pool)))
    else:
        centre = pool.mean(axis=0, dtype=np.float64).astype(pool.dtype)
        start = _cover_all(pool, centre[None, :], np.full_like(distances, np.inf))
    return _choose(pool, n, start, distances)


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


@njit(cache=True, fastmath=False)
def _cover(
    pool: NDArray[np.floating], point: NDArray[np.floating], distances: NDArray[np.floating]
) -> int:
    """Lower the squared distances to the covered set by one point; the index now farthest.

    Negative distances mark rows already taken, and are left alone.
    """
    best, farthest = -1, distances.dtype.type(-1.0)
    for i in range(pool.shape[0]):
        if distances[i] < 0:
            continue
        total = distances.dtype.type(0.0)
        limit = distances[i]
        for k in range(pool.shape[1]):
            step = pool[i, k] - point[k]
            total += step * step
        if total < limit:
            distances[i] = total
            limit = total
        if limit > farthest:
            farthest = limit
            best = i
    return best


@njit(cache=True, fastmath=False)
def _cover_all(
    pool: NDArray[np.floating], points: NDArray[np.floating], distances: NDArray[np.floating]
) -> int:
    """Lower the squared distances by many points; the index farthest from all of them."""
    best = 0
    for j in range(points.shape[0]):
        best = _cover(pool, points[j], distances)
    return best


@njit(cache=True, fastmath=False)
def _choose(
    pool: NDArray[np.floating], n: int, start: int, distances: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Take ``start``, then n - 1 times the farthest row."""
    chosen = np.empty(n, dtype=np.int64)
    current = start
    for i in range(n):
        chosen[i] = current
        distances[current] = -1.0
        if i + 1 < n:
            current = _cover(pool, pool[current], distances)
    return chosen
