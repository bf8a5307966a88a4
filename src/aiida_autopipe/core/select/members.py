"""Which rows are taken from clusters of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.select.rows import Rows, TooFewRowsError, Values, gather

if TYPE_CHECKING:
    from aiida_autopipe.core.select.direct import Clusters


def fill_up(
    rows: Rows, members: NDArray[np.int64], distances: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Put rows into the places of ``members`` that are -1: those farthest from their centroids.

    A cluster loses all its rows when centres move together. No row is taken that equals a member.

    Raises:
        TooFewRowsError: there are not so many different rows.
    """
    taken = members[members >= 0]
    places = np.flatnonzero(members < 0)
    seen = {row.tobytes() for row in gather(rows, taken)}
    found: list[int] = []
    # Blocks of the farthest rows, until enough of them differ.
    order = np.argsort(-distances, kind="stable")
    for start in range(0, len(order), 1024):
        candidates = order[start : start + 1024]
        for index, row in zip(candidates.tolist(), gather(rows, candidates), strict=True):
            key = row.tobytes()
            if key not in seen and len(found) < len(places):
                seen.add(key)
                found.append(index)
        if len(found) == len(places):
            filled = members.copy()
            filled[places] = found
            return filled
    available = len(taken) + len(found)
    raise TooFewRowsError(
        f"Cannot choose {len(members)} points: the pool of {rows.shape[0]} has only {available} "
        f"different rows; ask for at most {available}.",
        available,
    )


def members_by_rank(clusters: Clusters, n: int, k: int) -> NDArray[np.int64]:
    """``k`` rows of each cluster, evenly spread over the order of distance to the centroid.

    Places that small clusters cannot fill go to the largest, and too many are taken from the
    smallest, so that there are exactly ``n`` in all. Equal rows count once.

    Raises:
        TooFewRowsError: there are not so many different rows.
    """
    by_cluster = np.argsort(clusters.labels, kind="stable")
    limits = np.searchsorted(clusters.labels[by_cluster], np.arange(clusters.n + 1))
    ranked = []
    for label in range(clusters.n):
        rows = by_cluster[limits[label] : limits[label + 1]]
        points = gather(clusters.rows, rows)
        ranked.append(rows[_different_by_distance(points, clusters.centroids[label])])
    sizes = np.array([len(rows) for rows in ranked])
    if sizes.sum() < n:
        raise TooFewRowsError(
            f"Cannot choose {n} points: the pool of {len(clusters.labels)} has only {sizes.sum()} "
            f"different rows that are not covered; ask for at most {sizes.sum()}.",
            int(sizes.sum()),
        )
    places = _places(sizes, n, k)
    chosen = [
        rows[np.round(np.linspace(0, len(rows) - 1, count)).astype(int)]
        if count > 1
        else rows[:count]
        for rows, count in zip(ranked, places.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _different_by_distance(points: Values, centroid: Values) -> NDArray[np.int64]:
    """Indices of different rows by their distance to the centroid."""
    _, first = np.unique(points, axis=0, return_index=True)
    first = np.sort(first)
    distances = ((points[first].astype(np.float64) - centroid) ** 2).sum(axis=1)
    return first[np.argsort(distances, kind="stable")]


def _places(sizes: NDArray[np.int64], n: int, k: int) -> NDArray[np.int64]:
    """How many rows come from clusters of these sizes, ``n`` in all."""
    places = np.minimum(sizes, k)
    largest_first = np.argsort(-sizes, kind="stable")
    while (missing := n - int(places.sum())) > 0:
        room = largest_first[places[largest_first] < sizes[largest_first]]
        places[room[:missing]] += 1
    # One from each, from the smallest on, while a cluster keeps one.
    while (surplus := int(places.sum()) - n) > 0:
        smallest = largest_first[::-1]
        least = 1 if np.any(places > 1) else 0
        room = smallest[places[smallest] > least]
        places[room[:surplus]] -= 1
    return places
