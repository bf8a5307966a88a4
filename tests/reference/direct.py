"""Parts of DIRECT the slow and obvious way."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def standard_components(features: Points) -> tuple[Points, Points]:
    """Eigenvalues above 1 of the correlation matrix, and the rows along their eigenvectors."""
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    values, vectors = np.linalg.eigh(np.corrcoef(features.T))
    kept = np.flatnonzero(values > 1)[::-1]
    return values[kept], standard @ vectors[:, kept]


def nearest_to_centroid(points: Points, labels: NDArray[np.int32]) -> list[int]:
    """The row of each cluster that is nearest to the mean of the cluster."""
    return [_by_distance(points, labels, label)[0] for label in np.unique(labels)]


def spaced_by_rank(points: Points, labels: NDArray[np.int32], k: int) -> list[int]:
    """``k`` rows of each cluster, from the nearest to the farthest in equal steps of rank."""
    chosen = []
    for label in np.unique(labels):
        rows = _by_distance(points, labels, label)
        chosen += [rows[round(step * (len(rows) - 1) / (k - 1))] for step in range(k)]
    return chosen


def _by_distance(points: Points, labels: NDArray[np.int32], label: int) -> list[int]:
    members = np.flatnonzero(labels == label)
    distance = ((points[members] - points[members].mean(axis=0)) ** 2).sum(axis=1)
    return [int(i) for i in members[np.argsort(distance, kind="stable")]]
