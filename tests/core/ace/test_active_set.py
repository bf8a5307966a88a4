from itertools import combinations

import numpy as np
import pytest

from aiida_autopipe.core.ace.active_set import (
    ActiveSet,
    column_scale,
    maxvol,
    select_active_set,
)
from aiida_autopipe.core.errors import FitError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def scale_of(values: np.ndarray) -> np.ndarray:
    return column_scale((values**2).sum(axis=0), len(values))


def select(values: np.ndarray, pieces: int = 3, **options: float) -> ActiveSet:
    return select_active_set(lambda: np.array_split(values, pieces), scale_of(values), **options)


def test_maxvol_rows_dominate(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(200, 12))
    rows = maxvol(matrix, tol=1.001)
    assert len(set(rows)) == 12
    assert np.abs(matrix @ np.linalg.inv(matrix[rows])).max() <= 1.001 + 1e-9


def test_maxvol_is_near_the_largest_volume(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(12, 3))
    largest = max(abs(np.linalg.det(matrix[list(rows)])) for rows in combinations(range(12), 3))
    found = abs(np.linalg.det(matrix[maxvol(matrix)]))
    # A dominant submatrix is within F^(F/2) of the largest volume; in practice much closer.
    assert found > 0.5 * largest


def test_maxvol_continues_from_given_rows(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(50, 6))
    rows = maxvol(matrix)
    assert maxvol(matrix, start=rows).tolist() == rows.tolist()


def test_maxvol_refuses_what_has_no_square_submatrix(rng: np.random.Generator) -> None:
    with pytest.raises(FitError, match="at least 6 rows"):
        maxvol(rng.normal(size=(5, 6)))
    with pytest.raises(FitError, match="rank 6"):
        maxvol(np.repeat(rng.normal(size=(20, 3)), 2, axis=1))


def test_full_rank_data_leaves_no_pseudo_row(rng: np.random.Generator) -> None:
    values = rng.normal(size=(300, 20)) * np.logspace(0, -5, 20)
    active = select(values)
    assert active.n_pseudo == 0
    assert active.n_seen == 300
    assert active.gamma(values).max() <= 1.001 + 1e-9
    np.testing.assert_allclose(active.rows, values[active.indices], rtol=1e-12)
    np.testing.assert_allclose(active.gamma(active.rows), 1.0, atol=1e-9)


def test_blocks_do_not_change_what_is_reached(rng: np.random.Generator) -> None:
    values = rng.normal(size=(120, 8))
    volumes = [np.linalg.slogdet(select(values, pieces).rows)[1] for pieces in (1, 7)]
    assert volumes[0] == pytest.approx(volumes[1], abs=1.0)
    assert select(values, 7).gamma(values).max() <= 1.001 + 1e-9


def test_column_scaling_does_not_change_gamma(rng: np.random.Generator) -> None:
    values = rng.normal(size=(100, 6))
    factors = np.logspace(-4, 4, 6)
    new = rng.normal(size=(10, 6))
    np.testing.assert_allclose(
        select(values).gamma(new), select(values * factors).gamma(new * factors), rtol=1e-9
    )


def test_directions_never_sampled_have_large_finite_gamma(rng: np.random.Generator) -> None:
    values = rng.normal(size=(40, 4)) @ rng.normal(size=(4, 10))
    active = select(values, floor=1e-4)
    assert active.n_pseudo == 6
    assert active.gamma(values).max() <= 1.001 + 1e-9
    # gamma is a norm: between training environments it is at most that of its ends.
    between = 0.5 * (values[:20] + values[20:])
    np.testing.assert_array_less(active.gamma(between), 1.001 + 1e-9)
    outside = active.gamma(rng.normal(size=(5, 10)))
    assert np.isfinite(outside).all()
    assert outside.min() > 100


def test_fewer_environments_than_functions_and_zero_columns(rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 8))
    values[:, 5] = 0.0
    active = select(values, pieces=1)
    assert active.n_pseudo == 5
    assert np.isfinite(active.inverse).all()
    assert active.gamma(values).max() <= 1.001 + 1e-9
    assert np.isfinite(active.gamma(np.ones((1, 8)))).all()


def test_no_environment_at_all_keeps_all_pseudo_rows() -> None:
    active = select_active_set(lambda: [np.zeros((0, 4))], np.ones(4))
    assert active.n_pseudo == 4
    assert active.gamma(np.zeros((0, 4))).shape == (0,)


def test_growing_keeps_the_earlier_environments_covered(rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(80, 6)), 3 * rng.normal(size=(80, 6))
    old = select(first)
    new = select_active_set(lambda: [second], scale_of(first), start=old)
    assert new.n_seen == 160
    assert new.gamma(second).max() <= 1.001 + 1e-9
    assert new.gamma(old.rows).max() <= 1.001 + 1e-9
    both = np.concatenate([first, second])
    np.testing.assert_allclose(new.rows, both[new.indices], rtol=1e-12)
    assert np.linalg.slogdet(new.rows)[1] > np.linalg.slogdet(old.rows)[1]


def test_scale_of_columns() -> None:
    np.testing.assert_allclose(column_scale(np.array([4.0, 0.0, 16.0]), 4), [1.0, 1.5, 2.0])
    np.testing.assert_allclose(column_scale(np.zeros(2), 3), 1.0)
