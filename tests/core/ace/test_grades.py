"""Grades from a look in single precision against products in double precision."""

import numpy as np
import pytest

from aiida_autopipe.core.ace import grades
from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.grades import Grader

SIZE = 152


def environments(rng, n):
    """Vectors of functions that resemble each other: all but a few directions are small."""
    mixing = np.random.default_rng(3).normal(size=(SIZE, SIZE))
    spread = np.logspace(0, -3, SIZE)
    return 2.0 + (rng.normal(size=(n, SIZE)) * spread) @ mixing


def grader(inverse, first=0, places=None):
    places = np.arange(len(inverse)) if places is None else places
    return Grader(inverse, np.zeros((len(inverse), 1)), Embedding(), first, places)


@pytest.fixture(autouse=True, params=[True, False], ids=["kernel", "blas"])
def vectors(request, monkeypatch):
    """Processors of either kind."""
    monkeypatch.setattr(grades, "has_wide_vectors", lambda: request.param)


@pytest.fixture
def inverse(rng):
    return np.linalg.inv(environments(rng, SIZE))


def in_double(values, inverse):
    return np.abs(values @ inverse).max(axis=1)


def test_single_precision_alone_would_be_too_coarse(inverse, rng):
    assert grader(inverse)._screen is not None
    values = environments(rng, 500)
    expected = in_double(values, inverse)
    coarse = np.abs(values.astype(np.float32) @ inverse.astype(np.float32)).max(axis=1)
    assert np.abs(coarse / expected - 1.0).max() > 1e-4
    grades = grader(inverse).grades(values, np.arange(500))
    np.testing.assert_allclose(grades, expected, rtol=1e-9)


def test_columns_that_single_precision_cannot_tell_apart(inverse, rng):
    """Several nearly as large as the largest, of either sign."""
    numbers = rng.uniform(-0.9, 0.9, (200, SIZE))
    for row in numbers:
        few = rng.permutation(SIZE)[:5]
        row[few] = rng.choice([-1.0, 1.0], 5) * (1.0 + 1e-5 * rng.uniform(size=5))
    values = numbers @ np.linalg.inv(inverse)
    found = grader(inverse).grades(values, np.arange(200))
    np.testing.assert_allclose(found, np.abs(numbers).max(axis=1), rtol=1e-9)


def test_values_in_other_places(inverse, rng):
    """Functions in another order with gaps, after other columns, in some of the rows."""
    places = np.full(SIZE + 4, -1)
    places[rng.permutation(SIZE + 4)[:SIZE]] = rng.permutation(SIZE)
    values = environments(rng, 40)
    stored = rng.normal(size=(100, SIZE + 10))
    rows = rng.permutation(100)[:40]
    for place, function in enumerate(places):
        stored[rows, 4 + place] = values[:, function] if function >= 0 else 0.0
    found = grader(inverse, 4, places).grades(stored, rows)
    np.testing.assert_allclose(found, in_double(values, inverse), rtol=1e-9)


def test_environments_out_of_the_ordinary(inverse, rng):
    """Beyond single precision, not a number, nothing at all; those beside them are as alone."""
    values = environments(rng, 6)
    expected = in_double(values, inverse)
    values[1] *= 1e60
    values[3, 7] = np.nan
    values[4] = 0.0
    found = grader(inverse).grades(values, np.arange(6))
    np.testing.assert_allclose(found[[0, 2, 5]], expected[[0, 2, 5]], rtol=1e-9)
    assert found[1] == pytest.approx(1e60 * expected[1], rel=1e-9)
    assert np.isnan(found[3])
    assert found[4] == 0.0
    assert not np.signbit(found[4])


def test_many_environments_that_single_precision_says_nothing_of(inverse, rng):
    values = environments(rng, 300)
    values[20:280] = 1e-9 * rng.normal(size=(260, SIZE))
    found = grader(inverse).grades(values, np.arange(300))
    np.testing.assert_allclose(found, in_double(values, inverse), rtol=1e-9)


@pytest.mark.parametrize("n_real", [0, 20, SIZE - 1])
def test_active_sets_short_of_environments(n_real, rng):
    """Pseudo-rows stand for directions without environments."""
    active = 1e-6 * np.eye(SIZE)
    active[:n_real] = environments(rng, n_real)
    inverse = np.linalg.inv(active)
    values = environments(rng, 50)
    found = grader(inverse).grades(values, np.arange(50))
    np.testing.assert_allclose(found, in_double(values, inverse), rtol=1e-9)


def test_matrices_without_inverse(rng):
    inverse = rng.normal(size=(SIZE, SIZE))
    inverse[:, 3] = 0.0
    inverse[5] = 0.0
    values = environments(rng, 20)
    found = grader(inverse).grades(values, np.arange(20))
    np.testing.assert_allclose(found, in_double(values, inverse), rtol=1e-9)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_few_functions(size, rng):
    inverse, values = rng.normal(size=(size, size)), rng.normal(size=(9, size))
    padded = np.zeros((9, 4))
    padded[:, :size] = values
    places = np.array([*range(size), *[-1] * (4 - size)])
    found = grader(inverse, 0, places).grades(padded, np.arange(9))
    expected = in_double(values, inverse) if size else np.zeros(9)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
