import numpy as np
import pytest

from aiida_autopipe.core.ace.sums import GramSums, TriangularSums, symmetric

KINDS = [GramSums, TriangularSums]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_add_up_to_all_rows(kind: type, rng: np.random.Generator) -> None:
    rows, targets = rng.normal(size=(40, 5)), rng.normal(size=40)
    weight = rng.integers(0, 3, size=40).astype(float)
    first, second = kind(5), kind(5)
    first.add_rows(rows[:10], targets[:10], weight[:10])
    second.add_rows(np.asfortranarray(rows[10:25]), targets[10:25], weight[10:25])
    second.add_rows(rows[25:], targets[25:], weight[25:])
    first.add(second)
    np.testing.assert_allclose(symmetric(first.lower), rows.T @ (weight[:, None] * rows))
    np.testing.assert_allclose(first.moment, rows.T @ (weight * targets))
    assert first.square == pytest.approx(weight @ targets**2)
    assert first.weight == pytest.approx(weight.sum())
    assert first.count == np.count_nonzero(weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_reproduces_the_sums(kind: type, rng: np.random.Generator) -> None:
    rows, targets = rng.normal(size=(30, 4)), rng.normal(size=30)
    sums = kind(4)
    sums.add_rows(rows, targets, np.ones(30))
    factor = sums.factor()
    both = np.column_stack([rows, targets])
    np.testing.assert_allclose(factor.T @ factor, both.T @ both, atol=1e-12)
    np.testing.assert_allclose(np.tril(factor, -1), 0.0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zero_weight_may_hold_anything(kind: type) -> None:
    sums = kind(2)
    rows = np.array([[1.0, 2.0], [np.nan, np.inf]])
    sums.add_rows(rows, np.array([1.0, np.nan]), np.array([1.0, 0.0]))
    sums.add_rows(rows[1:], np.array([np.nan]), np.array([0.0]))
    assert np.isfinite(symmetric(sums.lower)).all()
    assert sums.count == 1


def test_triangular_factors_do_not_square_the_condition(rng: np.random.Generator) -> None:
    # Columns that agree to 1e-10: their difference is lost in the normal equations.
    first = rng.normal(size=50)
    rows = np.column_stack([first, first + 1e-10 * rng.normal(size=50)])
    gram, triangular = GramSums(2), TriangularSums(2)
    for sums in (gram, triangular):
        sums.add_rows(rows, first, np.ones(50))
    smallest = np.linalg.svd(rows, compute_uv=False)[-1]
    found = np.linalg.svd(triangular.factor()[:2, :2], compute_uv=False)[-1]
    assert found == pytest.approx(smallest, rel=1e-3)
    assert abs(np.linalg.eigvalsh(symmetric(gram.lower))[0]) > 10 * smallest**2
