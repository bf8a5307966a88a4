from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.select import components, direct
from aiida_autopipe.core.select.components import ProjectedRows, principal_components
from aiida_autopipe.core.select.direct import cluster
from aiida_autopipe.core.select.rows import TooFewRowsError, as_rows
from tests.reference.direct import nearest_to_centroid, spaced_by_rank, standard_components


@pytest.fixture(scope="module")
def pool() -> NDArray[np.float32]:
    """Clumps of different weight in four of twelve directions, far from the origin."""
    rng = np.random.default_rng(5)
    clump = rng.choice(30, size=4000, p=rng.dirichlet(np.full(30, 0.7)))
    inner = 4 * rng.normal(size=(30, 4))[clump] + 0.5 * rng.standard_t(4, size=(4000, 4))
    features = inner @ rng.normal(size=(4, 12)) + 0.1 * rng.normal(size=(4000, 12)) + 50
    return features.astype(np.float32)


def choose(pool: NDArray[np.floating], n: int, **options: object) -> list[int]:
    return direct.direct(pool, n, **options).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "k"), [(1, 1), (37, 1), (200, 1), (40, 3), (41, 4), (5, 50)])
def test_exactly_as_many_as_asked(pool: NDArray[np.float32], n: int, k: int) -> None:
    assert len(set(choose(pool, n, k=k))) == n


def test_seed_decides_and_threads_do_not(
    pool: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "SAMPLE_PER_CLUSTER", 4)
    first = choose(pool, 100, rng=np.random.default_rng(1))
    assert choose(pool, 100, rng=np.random.default_rng(1), threads=3) == first
    assert choose(pool, 100, rng=np.random.default_rng(2)) != first


def test_rows_nearest_to_the_true_centroids(pool: NDArray[np.float32]) -> None:
    clusters = cluster(as_rows(pool), 50, None, np.random.default_rng(0))
    points = clusters.rows.read(0, len(pool))
    assert np.all(clusters.counts > 0)
    slow = nearest_to_centroid(points.astype(np.float64), clusters.labels)
    assert choose(pool, 50) == sorted(slow)


def test_several_rows_by_rank(pool: NDArray[np.float32]) -> None:
    clusters = cluster(as_rows(pool), 10, None, np.random.default_rng(0))
    points = clusters.rows.read(0, len(pool)).astype(np.float64)
    assert clusters.counts.min() >= 3
    assert choose(pool, 30, k=3) == sorted(spaced_by_rank(points, clusters.labels, 3))


def test_labels_are_the_nearest_centres_by_either_way(pool: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(3000, 16)).astype(np.float32)
    for rows in (pool, noise):
        points = np.ascontiguousarray(rows[:, :8])
        centres = points[rng.choice(len(points), 40, replace=False)].copy()
        labels = np.zeros(len(points), dtype=np.int32)
        counts, sums = direct._assign(as_rows(points), centres, labels, 2)
        distances = ((points[:, None].astype(float) - centres) ** 2).sum(axis=2)
        np.testing.assert_allclose(
            distances[np.arange(len(points)), labels], distances.min(axis=1), rtol=1e-4, atol=1e-5
        )
        assert counts.tolist() == np.bincount(labels, minlength=40).tolist()
        np.testing.assert_allclose(sums[3], points[labels == 3].sum(axis=0), rtol=1e-5)


def test_what_is_known_is_not_chosen(pool: NDArray[np.float32]) -> None:
    left = pool[:, 0] < np.median(pool[:, 0])
    chosen = np.array(choose(pool, 40, already=pool[left]))
    assert not np.any(left[chosen])
    with_copies = choose(pool, 40, already=np.repeat(pool[left], 2, axis=0))
    assert with_copies == chosen.tolist()


def test_components_as_of_the_correlation_matrix(pool: NDArray[np.float32]) -> None:
    found = principal_components(as_rows(pool.astype(np.float64)))
    variance, points = standard_components(pool.astype(np.float64))
    assert found.n == len(variance)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-8)
    np.testing.assert_allclose(found.explained, variance / 12, rtol=1e-8)
    mine = found.project(pool.astype(np.float64))[:, : found.n] / found.explained
    np.testing.assert_allclose(np.abs(mine), np.abs(points), atol=1e-4)


def test_one_component_at_least_and_constant_features_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 1))
    assert principal_components(as_rows(one)).n == 1
    padded = np.concatenate([np.full((50, 2), 1e6), one, np.zeros((50, 1))], axis=1)
    assert choose(padded, 10) == choose(one, 10)
    with pytest.raises(TooFewRowsError, match="50 has only 1 different"):
        choose(np.full((50, 3), 2.5), 2)
    assert len(choose(np.full((50, 3), 2.5), 1)) == 1


def test_files_and_blocks_give_what_memory_gives(
    pool: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng
    monkeypatch.setattr("aiida_autopipe.core.select.rows.BLOCK_BYTES", 1 << 14)
    expected = choose(pool, 60, rng=rng(0))
    np.save(tmp_path / "pool.npy", pool)
    streamed = direct.direct(tmp_path / "pool.npy", 60, rng=rng(0))  # type: ignore[arg-type]
    assert streamed.tolist() == expected
    nothing_kept = lambda *a: ProjectedRows(*a, keep_bytes=0)  # noqa: E731
    monkeypatch.setattr(direct, "ProjectedRows", nothing_kept)
    assert choose(pool, 60, rng=rng(0)) == expected
    assert components.LANES == 8


def test_bad_input(pool: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="Cannot choose 4001 points from a pool of 4000"):
        choose(pool, 4001)
    with pytest.raises(InputError, match="k must be at least 1"):
        choose(pool, 3, k=0)
    repeated = np.repeat(pool[:5], 4, axis=0)
    for k in (1, 2):
        with pytest.raises(TooFewRowsError, match="has only 5 different"):
            choose(repeated, 12, k=k)
    broken = pool.copy()
    broken[17, 3] = np.nan
    with pytest.raises(DataError, match="Row 17 of the pool"):
        choose(broken, 3)
    with pytest.raises(DataError, match="Row 17 of the covered set"):
        choose(pool, 3, already=broken)
    with pytest.raises(DataError, match="12 features but the covered set has 3"):
        choose(pool, 3, already=pool[:, :3])
    assert choose(pool, 0) == []
