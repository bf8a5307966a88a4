import numpy as np
import pytest

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.select.fps import farthest_point
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


def test_all_points_are_chosen_once_even_when_they_coincide() -> None:
    pool = np.ones((6, 3))
    assert sorted(farthest_point(pool, 6).tolist()) == list(range(6))


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
