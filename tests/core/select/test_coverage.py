import numpy as np
import pytest

from aiida_autopipe.core.select.components import ProjectedRows, principal_components
from aiida_autopipe.core.select.coverage import bin_scores, coverage
from aiida_autopipe.core.select.rows import ArrayRows, as_rows


def test_score_of_an_example_done_by_hand() -> None:
    """One component over 99 bins of width 1: bins 0, 1, 50 and 98 are occupied, 0 and 50 chosen."""
    values = np.zeros((6, 8), dtype=np.float32)
    values[:, 0] = [0.0, 0.5, 1.5, 50.5, 98.5, 99.0]
    values[:, 1] = [0.0, 99.0, 0.0, 99.0, 0.0, 99.0]
    scores = bin_scores(ArrayRows(values), [values[[0, 3]], values], 2)
    np.testing.assert_allclose(scores, [[2 / 4, 2 / 2], [1, 1]])


def test_all_rows_cover_everything_and_spread_rows_more_than_random() -> None:
    rng = np.random.default_rng(0)
    pool = rng.standard_t(3, size=(2000, 5))
    everything = coverage(as_rows(pool), np.arange(2000))
    assert everything.chosen.score == 1.0
    assert everything.chosen.max_distance == 0.0 and everything.chosen.within_reach == 1.0
    components = principal_components(as_rows(pool))
    points = ProjectedRows(as_rows(pool), components).read(0, 2000)
    extremes = np.argsort(-np.abs(points).max(axis=1))[:100]
    result = coverage(as_rows(pool), extremes, seed=4)
    assert result.chosen.score > result.random.score
    assert result.numbers() == coverage(as_rows(pool), extremes, seed=4, threads=2).numbers()


def test_within_reach_is_by_distance_and_known_rows_count() -> None:
    rng = np.random.default_rng(1)
    pool = rng.normal(size=(400, 3))
    chosen = np.array([3, 77, 140])
    for known in (None, pool[:50]):
        result = coverage(as_rows(pool), chosen, None if known is None else as_rows(known))
        components = principal_components(as_rows(pool))
        points = components.project(pool).astype(float)
        there = points[chosen] if known is None else points[[*range(50), *chosen]]
        distance = np.sqrt(((points[:, None] - there) ** 2).sum(axis=2)).min(axis=1)
        np.testing.assert_allclose(result.distances, distance, atol=1e-6)
        assert result.chosen.within_reach == pytest.approx(np.mean(distance <= result.reach))
        assert result.n_known == (0 if known is None else 50)


def test_equal_rows() -> None:
    result = coverage(as_rows(np.ones((20, 2))), np.array([4]))
    assert (result.chosen.score, result.chosen.within_reach, result.reach) == (1.0, 1.0, 0.0)
