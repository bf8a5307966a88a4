import operator

import numpy as np
import pytest
from numba import njit

from aiida_autopipe.core.ace.lanes import (
    LANES,
    item,
    kernel,
    load,
    pick,
    prefetch,
    root,
    spread,
    store,
    sums,
    transpose,
)


@njit
def _sum(a, b, out):
    store(out, 0, load(a, 1) + load(b, 0))


@njit
def _difference(a, b, out):
    store(out, 0, load(a, 1) - load(b, 0))


@njit
def _product(a, b, out):
    store(out, 0, load(a, 1) * load(b, 0))


@njit
def _quotient(a, b, out):
    store(out, 0, load(a, 1) / load(b, 0))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_sum, operator.add),
        (_difference, operator.sub),
        (_product, operator.mul),
        (_quotient, operator.truediv),
    ],
)
def test_arithmetic_acts_on_each_element(function, expected, rng):
    a, b, out = rng.normal(size=LANES + 1), rng.normal(size=LANES), np.zeros(LANES)
    function(a, b, out)
    np.testing.assert_array_equal(out, expected(a[1:], b))


@njit
def _transposed(rows, out):
    columns = transpose(load(rows, 0), load(rows, 4), load(rows, 8), load(rows, 12))
    for k in range(LANES):
        store(out, LANES * k, columns[k])


@njit
def _sums(rows, out):
    store(out, 0, sums(load(rows, 0), load(rows, 4), load(rows, 8), load(rows, 12)))


def test_transpose_and_sums(rng):
    rows, out = rng.normal(size=(LANES, LANES)), np.zeros((LANES, LANES))
    _transposed(rows, out)
    np.testing.assert_array_equal(out, rows.T)
    _sums(rows, out)
    np.testing.assert_allclose(out[0], rows.sum(axis=1), rtol=1e-14)


@njit
def _mixed(a, indices, out):
    prefetch(a, 0)
    out[0] = pick(root(load(a, 0)), 3)
    out[1] = pick(spread(item(a, 2)), 1)
    out[2] = item(indices, 1)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_elements_go_in_and_out(kind):
    out = np.zeros(3)
    _mixed(np.array([1.0, 4.0, 9.0, 16.0]), np.array([7, -8], dtype=kind), out)
    np.testing.assert_array_equal(out, [4.0, 9.0, -8.0])


@kernel
def _extremes(a, b, out):
    store(out, 0, load(a, 0) * load(b, 0) + load(b, 0))


def test_kernels_keep_nan_infinity_and_signed_zero():
    a, b = np.array([np.nan, np.inf, -0.0, np.inf]), np.array([1.0, 0.0, 1.0, -1.0])
    out = np.zeros(LANES)
    _extremes(a, b, out)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, a * b + b)
    b = np.array([0.0, 1.0, -0.0, -0.0])
    _extremes(np.zeros(LANES), b, out)
    assert np.signbit(out).tolist() == [False, False, True, True]
