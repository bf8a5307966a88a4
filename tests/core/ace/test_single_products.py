"""Products in single precision, with our kernel and with BLAS."""

import numpy as np
import pytest

from aiida_autopipe.core.ace.single_products import COLUMNS, TILE, RightMatrix


@pytest.fixture(params=[True, False], ids=["kernel", "blas"])
def wide(request):
    return request.param


# One tile and panel, parts of them, and more than one of each.
@pytest.mark.parametrize("n", [1, TILE, TILE + 1, 5 * TILE - 2])
@pytest.mark.parametrize("n_columns", [1, COLUMNS, 3 * COLUMNS - 5])
@pytest.mark.parametrize("size", [1, 7, 150])
def test_products_of_all_shapes(rng, wide, n, n_columns, size):
    left = rng.normal(size=(n, size))
    right = rng.normal(size=(size, n_columns)).astype(np.float32)
    matrix = RightMatrix.packed(right, wide)
    tiles = matrix.tiles_of(left)
    assert tiles.shape == matrix.empty_tiles(n).shape
    found = matrix.products(tiles)[:n, :n_columns]
    expected = left.astype(np.float32).astype(float) @ right
    tolerance = 1e-6 * np.abs(left) @ np.abs(right)
    assert found.dtype == np.float32
    assert (np.abs(found - expected) <= tolerance + 1e-30).all()


def test_rows_do_not_touch_each_other(rng, wide):
    """What is not a number stays in its row, also beside rows that only fill a tile."""
    left = rng.normal(size=(TILE + 3, 40))
    right = rng.normal(size=(40, 50)).astype(np.float32)
    matrix = RightMatrix.packed(right, wide)
    good = matrix.products(matrix.tiles_of(left))[: len(left), :50].copy()
    left[4, 7], left[TILE, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        found = matrix.products(matrix.tiles_of(left))[: len(left), :50]
    others = ~np.isin(np.arange(len(left)), [4, TILE])
    np.testing.assert_array_equal(found[others], good[others])
    assert np.isnan(found[4]).all()
    assert not np.isfinite(found[TILE]).any()


def test_tiles_to_be_filled_begin_with_zeros_where_nothing_comes(wide):
    matrix = RightMatrix.packed(np.ones((5, 4), np.float32), wide)
    tiles = matrix.empty_tiles(TILE + 2)
    for row in range(TILE + 2):
        tiles[row // matrix.tile, :, row % matrix.tile] = 1.0
    assert np.isfinite(tiles).all()
    assert (matrix.products(tiles)[: TILE + 2, :4] == 5.0).all()
