"""DIRECT sampling: principal components, clusters, and from each cluster what is typical of it.

Qi, Ko, Wood, Pham and Ong, npj Comput. Mater. 10, 43 (2024). The components are those of the
standardised features (`components`). The clusters are made so that their number is exact and their
sizes in space are alike: points that are far from each other (`fps`) are the first centres, a few
steps of Lloyd (IEEE Trans. Inf. Theory 28, 129 (1982)) on a sample move them among the rows near
them, and one pass over the pool gives every row to its nearest centre. From each cluster come rows
by their distance to its true centroid, the mean of its members.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.select import kernels
from aiida_autopipe.core.select.components import (
    Components,
    ProjectedRows,
    principal_components,
)
from aiida_autopipe.core.select.fps import by_distance, farthest_point, spread
from aiida_autopipe.core.select.members import fill_up, members_by_rank
from aiida_autopipe.core.select.rows import (
    Rows,
    Values,
    as_rows,
    blocks,
    check_finite,
    check_number,
    check_same_width,
    gather,
)

SAMPLE_PER_CLUSTER = 64
"""Rows of the sample for each cluster."""
LLOYD_STEPS = 1
PROBE_ROWS = 1024
PRODUCT_ROWS = 256
MOST_KNOWN = 2000
"""Most points that stand for the covered set."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of the pool.

    Attributes:
        components: the map to the space of the clusters.
        rows: the pool in that space.
        n: number of clusters; covered points have the numbers from ``n`` on.
        labels: (pool,) cluster of each row.
        centroids: (n + covered, m) means of the members; the centre where there are none.
        counts: (n + covered,) members.
        known: (m, width) the covered points.
    """

    components: Components
    rows: ProjectedRows
    n: int
    labels: NDArray[np.int32]
    centroids: NDArray[np.float32]
    counts: NDArray[np.int64]
    known: NDArray[np.float32]


def direct(
    features: ArrayLike | Rows | h5py.Dataset,
    n: int,
    already: ArrayLike | Rows | h5py.Dataset | None = None,
    rng: np.random.Generator | None = None,
    k: int = 1,
    weighted: bool = True,
    threads: int = 1,
) -> NDArray[np.int64]:
    """Choose ``n`` rows of ``features`` (pool, d), ``k`` from each of n / k clusters (rounded up).

    With k = 1 the row nearest to the centroid is taken; with more, rows evenly spread from the
    nearest to the farthest. Clusters with fewer rows than ``k`` leave their places to the largest.
    Rows nearer to a point of ``already`` (m, d) than to any cluster are covered and not chosen; of
    more than 2000 such points 2000 that are far from each other stand for all. ``rng`` draws the
    sample that moves the centres; None is a generator with the seed 0. The pool may be larger than
    memory (see `rows`). Neither it nor the result depends on ``threads``.

    Returns exactly ``n`` different rows (n,), ascending. Raises InputError when ``n`` is negative
    or larger than the pool or ``k`` is not positive, TooFewRowsError when the pool has fewer
    different rows, DataError for NaN, infinity or shapes that do not match.
    """
    rows = as_rows(features)
    check_number(n, rows.shape[0])
    if k < 1:
        raise InputError(f"Cannot take {k} rows from each cluster; k must be at least 1.")
    if n == 0:
        return np.empty(0, dtype=np.int64)
    rng = rng or np.random.default_rng(0)
    clusters = cluster(rows, -(-n // k), already, rng, weighted, threads)
    if k > 1:
        return members_by_rank(clusters, n, k)
    members, distances = _nearest_to_centroids(clusters, threads)
    if np.any(members < 0):
        members = fill_up(clusters.rows, members, distances)
    return np.sort(members)


def cluster(
    rows: Rows,
    n: int,
    already: ArrayLike | Rows | h5py.Dataset | None,
    rng: np.random.Generator,
    weighted: bool = True,
    threads: int = 1,
) -> Clusters:
    """Divide the pool into ``n`` clusters and the rows that are nearer to covered points."""
    covered = None if already is None else as_rows(already, "covered set")
    if covered is not None:
        check_same_width(rows, covered)
    components = principal_components(rows, weighted, threads)
    projected = ProjectedRows(rows, components, threads)
    known = _known(components, covered, projected.shape[1])
    seeds = spread(projected, n, known)
    # Seeds first, so that ties between a cluster and a covered point go to the cluster.
    m = len(known)
    centres = np.concatenate([seeds.centres[m:], seeds.centres[:m]])
    guess = np.where(seeds.nearest < m, seeds.nearest + n, seeds.nearest - m).astype(np.int32)
    _move(projected, centres, guess, n, rng, threads)
    counts, sums = _assign(projected, centres, guess, threads)
    centroids = centres.copy()
    filled = np.flatnonzero(counts[:n])
    centroids[filled] = sums[filled] / counts[filled, None]
    return Clusters(components, projected, n, guess, centroids, counts, known)


def _known(components: Components, covered: Rows | None, width: int) -> NDArray[np.float32]:
    """Covered points in the space of the components; not more than MOST_KNOWN, all different."""
    if covered is None or covered.shape[0] == 0:
        return np.empty((0, width), dtype=np.float32)
    parts = []
    for start, stop in blocks(covered):
        block = covered.read(start, stop)
        check_finite(block, start, "covered set")
        parts.append(components.project(block))
    known = np.unique(np.concatenate(parts), axis=0)
    return known if len(known) <= MOST_KNOWN else known[farthest_point(known, MOST_KNOWN)]


def _move(
    rows: Rows,
    centres: Values,
    guess: NDArray[np.int32],
    n: int,
    rng: np.random.Generator,
    threads: int,
) -> None:
    """Steps of Lloyd on a sample; a centre without rows of the sample, and covered points, stay."""
    size = min(rows.shape[0], SAMPLE_PER_CLUSTER * n)
    chosen = np.sort(rng.choice(rows.shape[0], size, replace=False, shuffle=False))
    sample = as_rows(gather(rows, chosen))
    labels = guess[chosen]
    for _ in range(LLOYD_STEPS):
        counts, sums = _assign(sample, centres, labels, threads)
        filled = np.flatnonzero(counts[:n])
        centres[filled] = sums[filled] / counts[filled, None]


def _assign(
    rows: Rows, centres: Values, labels: NDArray[np.int32], threads: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Improve ``labels`` to the nearest centres; members of each and their sums."""
    order, reach = by_distance(kernels.all_apart(centres))
    first = min(rows.shape[0], PROBE_ROWS)
    probe = kernels.assign(rows.read(0, first), centres, order, reach, labels[:first].copy())
    # In many dimensions hardly a centre can be excluded: then all at once, by products, is faster.
    by_products = probe > 0.15 * first * len(centres)

    def part(limits: tuple[int, int]) -> tuple[Any, Any]:
        block, mine = rows.read(*limits), labels[slice(*limits)]
        if by_products:
            _assign_by_products(block, centres, mine)
        else:
            kernels.assign(block, centres, order, reach, mine)
        counts = np.zeros(len(centres), dtype=np.int64)
        sums = np.zeros(centres.shape)
        kernels.add_members(block, mine, sums, counts)
        return counts, sums

    counts, sums = np.zeros(len(centres), dtype=np.int64), np.zeros(centres.shape)
    for part_counts, part_sums in in_threads(part, blocks(rows), threads):
        counts += part_counts
        sums += part_sums
    return counts, sums


def _assign_by_products(block: Values, centres: Values, labels: NDArray[np.int32]) -> None:
    norms = (centres.astype(np.float64) ** 2).sum(axis=1).astype(np.float32) / 2
    for start in range(0, len(block), PRODUCT_ROWS):
        part = slice(start, start + PRODUCT_ROWS)
        kernels.assign_all(block[part] @ centres.T, norms, labels[part])


def _nearest_to_centroids(
    clusters: Clusters, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The row nearest to each centroid, -1 for a cluster without rows, and all distances."""
    labels, centroids = clusters.labels, clusters.centroids
    distances = np.empty(len(labels), dtype=np.float32)

    def part(limits: tuple[int, int]) -> tuple[Any, Any]:
        best = np.full(len(centroids), np.inf, dtype=np.float32)
        members = np.full(len(centroids), -1, dtype=np.int64)
        block = clusters.rows.read(*limits)
        kernels.nearest_members(block, limits[0], centroids, labels, distances, best, members)
        return best, members

    best = np.full(len(centroids), np.inf, dtype=np.float32)
    members = np.full(len(centroids), -1, dtype=np.int64)
    for part_best, part_members in in_threads(part, blocks(clusters.rows), threads):
        better = part_best < best
        best[better], members[better] = part_best[better], part_members[better]
    return members[: clusters.n], distances
