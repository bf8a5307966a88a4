from pathlib import Path

import h5py
import numpy as np
import pytest

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.select import fps
from aiida_autopipe.core.select.fps import farthest_point
from aiida_autopipe.core.select.rows import ArrayRows, TooFewRowsError
from tests.reference.fps import farthest_point as slow_farthest_point


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("with_already", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_as_the_obvious_algorithm(
    rng: np.random.Generator, with_already: bool, dtype: type
) -> None:
    pool = rng.normal(size=(60, 5)).astype(dtype)
    already = rng.normal(size=(7, 5)).astype(dtype) if with_already else None
    chosen = farthest_point(pool, 25, already)
    assert chosen.tolist() == slow_farthest_point(pool, 25, already)


def test_equal_points_are_chosen_once(rng: np.random.Generator) -> None:
    pool = np.repeat(rng.normal(size=(4, 3)), 5, axis=0)
    assert sorted(i // 5 for i in farthest_point(pool, 4).tolist()) == [0, 1, 2, 3]
    with pytest.raises(
        TooFewRowsError, match=r"Cannot choose 5 points.* 20 has only 4 different"
    ) as said:
        farthest_point(pool, 5)
    assert said.value.available == 4
    with pytest.raises(
        TooFewRowsError, match="only 3 different rows that differ from the covered set"
    ):
        farthest_point(pool, 4, already=pool[:1])


def test_points_already_covered_come_last(rng: np.random.Generator) -> None:
    pool = rng.normal(size=(20, 4))
    assert set(farthest_point(pool, 10, already=pool[:10])) == set(range(10, 20))


def test_corners_of_a_square_before_its_inside(rng: np.random.Generator) -> None:
    corners = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    pool = np.concatenate([0.4 + 0.2 * rng.random((50, 2)), corners])
    assert set(farthest_point(pool, 4)) == {50, 51, 52, 53}


def test_a_generator_decides_the_first_point_only_when_given() -> None:
    pool = np.random.default_rng(0).normal(size=(100, 3))
    assert farthest_point(pool, 5).tolist() == farthest_point(pool, 5).tolist()
    starts = {farthest_point(pool, 1, rng=np.random.default_rng(s))[0] for s in range(8)}
    assert len(starts) > 1
    first = farthest_point(pool, 9, rng=np.random.default_rng(3))
    assert first.tolist() == farthest_point(pool, 9, rng=np.random.default_rng(3)).tolist()
    assert len(set(first)) == 9


@pytest.mark.parametrize("kind", ["flat", "clumps", "repeated"])
def test_passes_over_a_pool_larger_than_the_rows_kept(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(fps, "ACTIVE_ROWS", (8, 16))
    monkeypatch.setattr(fps, "SAMPLE_ROWS", 64)
    monkeypatch.setattr(fps, "ROWS_PER_POINT", 1)
    pool = rng.normal(size=(300, 6))
    if kind == "clumps":
        pool = 0.05 * pool + rng.normal(size=(12, 6))[rng.integers(12, size=300)]
    elif kind == "repeated":
        pool = pool[rng.integers(60, size=300)]
    chosen = farthest_point(pool, 30)
    assert chosen.tolist() == slow_farthest_point(pool, 30)
    few_points = rng.normal(size=(10, 6))
    chosen = farthest_point(pool, 20, few_points)
    assert chosen.tolist() == slow_farthest_point(pool, 20, few_points)


def test_more_points_than_the_table_of_distances(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fps, "TABLE", 10)
    pool = rng.normal(size=(200, 3))
    assert farthest_point(pool, 30).tolist() == slow_farthest_point(pool, 30)


def test_from_files_as_from_memory(rng: np.random.Generator, tmp_path: Path) -> None:
    pool = rng.normal(size=(40_000, 24)).astype(np.float32)
    np.save(tmp_path / "pool.npy", pool)
    with h5py.File(tmp_path / "pool.h5", "w") as handle:
        handle["features"] = pool.reshape(400, 100, 24)
        chosen = farthest_point(handle["features"], 50)
    assert chosen.tolist() == farthest_point(pool, 50).tolist()
    assert chosen.tolist() == farthest_point(tmp_path / "pool.npy", 50).tolist()
    assert chosen.tolist() == farthest_point(ArrayRows(pool), 50).tolist()


def test_nothing_asked_nothing_chosen() -> None:
    assert farthest_point(np.zeros((3, 2)), 0).size == 0
    assert farthest_point(np.zeros((0, 2)), 0).size == 0


def test_bad_input(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="Cannot choose 4 points from a pool of 3"):
        farthest_point(np.zeros((3, 2)), 4)
    with pytest.raises(InputError, match="Cannot choose -1"):
        farthest_point(np.zeros((3, 2)), -1)
    with pytest.raises(DataError, match="Row 1 of the pool"):
        farthest_point(np.array([[0.0], [np.nan]]), 1)
    with pytest.raises(DataError, match="2 features but the covered set has 3"):
        farthest_point(np.zeros((3, 2)), 1, already=np.zeros((1, 3)))
    with pytest.raises(DataError, match="two dimensions"):
        farthest_point(np.zeros(3), 1)
