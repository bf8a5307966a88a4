"""How much of a pool a choice covers, next to random choices of the same size.

The score is that of the DIRECT paper (Qi et al., npj Comput. Mater. 10, 43 (2024)): each principal
component is cut into bins of equal width from its least to its largest value; of the bins that hold
rows of the pool, the share that holds a chosen one, averaged over the components. The components
are not weighted, and known rows do not count for the score.

A row is within reach when its distance to the nearest chosen or known row is not above a radius.
The radius is the one at which as many points, far from each other, reach every row: the largest
distance left by farthest-point sampling. Distances are those in the space of the weighted
components.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.select import kernels
from aiida_autopipe.core.select.components import Components, ProjectedRows, principal_components
from aiida_autopipe.core.select.fps import by_distance, farthest_point
from aiida_autopipe.core.select.rows import (
    Rows,
    TooFewRowsError,
    Values,
    blocks,
    check_same_width,
    gather,
)

BINS = 99
"""Bins of each component: 100 edges, as in the paper's own count."""
SAMPLE_ROWS = 50_000
"""Most rows whose distances are looked at; an even sample of a larger pool."""
RANDOM_CHOICES = 5


@dataclass(frozen=True)
class Covered:
    """What one choice covers.

    score: mean share of occupied bins; within_reach: share of the pool; mean_distance and
    max_distance: of rows of the pool to the nearest chosen or known one.
    """

    score: float
    within_reach: float
    mean_distance: float
    max_distance: float


@dataclass(frozen=True, eq=False)
class Coverage:
    """A choice next to random ones.

    Attributes:
        chosen: the choice.
        random: the mean over random choices of the same size, with the same known rows.
        n_chosen, n_pool, n_known: numbers of rows.
        n_components: principal components kept.
        explained: share of the variance they have.
        reach: the radius, in the space of the weighted components.
        n_sample: rows whose distances were looked at.
        n_random: random choices.
        map_pool, map_chosen, map_known: (k, 2) first two components, for a plot.
        distances, random_distances: (n_sample,) to the nearest, the latter for one random choice.
    """

    chosen: Covered
    random: Covered
    n_chosen: int
    n_pool: int
    n_known: int
    n_components: int
    explained: float
    reach: float
    n_sample: int
    n_random: int
    map_pool: NDArray[np.float64] = field(repr=False)
    map_chosen: NDArray[np.float64] = field(repr=False)
    map_known: NDArray[np.float64] = field(repr=False)
    distances: NDArray[np.float64] = field(repr=False)
    random_distances: NDArray[np.float64] = field(repr=False)

    def numbers(self) -> dict[str, object]:
        """Everything but the arrays, as JSON values."""
        return {
            "chosen": vars(self.chosen).copy(),
            "random": vars(self.random).copy(),
            "reach": self.reach,
            "within_reach_rows": round(self.chosen.within_reach * self.n_pool),
            "n_pool": self.n_pool,
            "n_known": self.n_known,
            "n_components": self.n_components,
            "explained": self.explained,
            "n_sample": self.n_sample,
            "n_random": self.n_random,
        }


def coverage(
    features: Rows,
    chosen: NDArray[np.int64],
    known: Rows | None = None,
    seed: int = 0,
    threads: int = 1,
) -> Coverage:
    """Coverage of the rows ``chosen`` of a pool.

    Args:
        features: the pool (pool, d).
        chosen: (n,) indices, at least one.
        known: (m, d) rows that were covered before.
        seed: of the random choices.
        threads: for the projection; results do not depend on it.

    Raises:
        DataError: NaN, infinity or shapes that do not match.
    """
    if known is not None:
        check_same_width(features, known)
    components = principal_components(features, threads=threads)
    rows = ProjectedRows(features, components, threads)
    n_pool, n = features.shape[0], len(chosen)
    before = np.empty((0, rows.shape[1]), dtype=np.float32)
    if known is not None and known.shape[0]:
        before = components.project(known.read(0, known.shape[0]))
    sample = gather(rows, np.arange(n_pool)[:: -(-n_pool // SAMPLE_ROWS)])
    rng = np.random.default_rng(seed)
    choices = [np.asarray(chosen)]
    choices += [rng.choice(n_pool, n, replace=False) for _ in range(RANDOM_CHOICES)]
    points = [gather(rows, choice) for choice in choices]
    scores = bin_scores(rows, points, components.n)
    distances = [_nearest(sample, np.concatenate([p, before])) for p in points]
    reach = _reach(sample, n)
    results = [
        Covered(float(s), float(np.mean(d <= reach)), float(d.mean()), float(d.max()))
        for s, d in zip(scores.mean(axis=1), distances, strict=True)
    ]
    means = np.mean([_values(result) for result in results[1:]], axis=0).tolist()
    return Coverage(
        chosen=results[0],
        random=Covered(*means),
        n_chosen=n,
        n_pool=n_pool,
        n_known=len(before),
        n_components=components.n,
        explained=float(components.explained.sum()),
        reach=reach,
        n_sample=len(sample),
        n_random=RANDOM_CHOICES,
        map_pool=_map(components, sample),
        map_chosen=_map(components, points[0]),
        map_known=_map(components, before),
        distances=distances[0],
        random_distances=distances[1],
    )


def bin_scores(rows: Rows, choices: list[Values], n_components: int) -> NDArray[np.float64]:
    """(choices, components) share of the pool's occupied bins that hold a row of the choice.

    Args:
        rows: components of the pool.
        choices: components of chosen rows, (n, width) each.
        n_components: columns that count; the others only fill up registers.
    """
    low = np.full(n_components, np.inf)
    high = -low
    for start, stop in blocks(rows):
        block = rows.read(start, stop)[:, :n_components]
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    width = np.where(high > low, (high - low) / BINS, 1.0)
    columns = np.arange(n_components)

    def occupied(values: Values, table: NDArray[np.bool_]) -> NDArray[np.bool_]:
        bins = ((values[:, :n_components] - low) / width).astype(np.int64).clip(0, BINS - 1)
        table[bins, columns] = True
        return table

    pool = np.zeros((BINS, n_components), dtype=bool)
    for start, stop in blocks(rows, 65_536):
        occupied(rows.read(start, stop), pool)
    held = [occupied(choice, np.zeros_like(pool)).sum(axis=0) for choice in choices]
    shares: NDArray[np.float64] = np.array(held) / pool.sum(axis=0)
    return shares


def _nearest(sample: Values, points: Values) -> NDArray[np.float64]:
    """Distance of each row of the sample to the nearest point."""
    order, reach = by_distance(kernels.all_apart(points))
    # The point nearest along the first component, which varies most, is a good first guess.
    along = np.argsort(points[:, 0], kind="stable")
    place = np.searchsorted(points[along, 0], sample[:, 0]).clip(0, len(points) - 1)
    labels = along[place].astype(np.int32)
    kernels.assign(sample, points, order, reach, labels)
    steps = sample.astype(np.float64) - points[labels]
    return np.asarray(np.sqrt((steps**2).sum(axis=1)))


def _reach(sample: Values, n: int) -> float:
    """Largest distance to ``n`` rows of the sample that are far from each other."""
    if n >= len(sample):
        return 0.0
    try:
        chosen = farthest_point(sample, n + 1)
    except TooFewRowsError:
        return 0.0
    points = sample[chosen].astype(np.float64)
    return float(np.sqrt(((points[:-1] - points[-1]) ** 2).sum(axis=1).min()))


def _map(components: Components, points: Values) -> NDArray[np.float64]:
    """First two components without their weights; the second is zero where there is one."""
    result = np.zeros((len(points), 2))
    shown = min(2, components.n)
    weights = np.where(components.explained > 0, components.explained, 1.0)[:shown]
    result[:, :shown] = points[:, :shown] / weights
    return result


def _values(covered: Covered) -> tuple[float, float, float, float]:
    return covered.score, covered.within_reach, covered.mean_distance, covered.max_distance
