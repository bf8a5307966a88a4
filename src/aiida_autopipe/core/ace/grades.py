"""Extrapolation grades max |v M| of many environments, M the inverse active set of their element.

The product with M is most of the work, and half of it in single precision. There it is too coarse
to be a grade: the functions of a basis resemble each other, so that v M is the small difference of
numbers up to 1e5 times larger, and an error of a percent was seen. It is good enough to tell which
columns of M can give the largest number, one or two out of hundreds; those are computed in double
precision. What comes out is the same as from double precision throughout.

How far single precision can be off is measured. With c the mean of the active environments and
w_k = max_j |M_kj|, every number is a sum of products of d = (v - c) w, in ascending order, and of
M / w, none larger than 1, and its error is some e |d|. Of the active environments, which span all
others, v M is known: e is the largest that they have in any column. Thousands of other environments
of silicon and lithium had at most 1.9 times that, with 300 to 1200 functions, and random numbers at
most 2.9 times. Columns are looked at in double precision that could be the largest with errors of
4 e |d|.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.kernels import Floats, Ints
from aiida_autopipe.core.ace.lanes import LANES, inlined, kernel, load, pick, spread
from aiida_autopipe.core.ace.single_products import RightMatrix, Singles, has_wide_vectors

# Indices that numba need not take for negative ones, which count from the end.
Places = NDArray[np.uint64]

# Of two columns, each may be off by 4 e |d|.
_ERRORS = 2.0 * 4.0
# Few small numbers can be exact by chance; the roundings of d and M alone can make this much.
_LEAST_ERROR = 2.0 * 2.0**-24
# Largest doubt about the grade of active environments, which is 1, that single precision may leave.
_MOST_DOUBT = 0.25
# Share of the columns of a block of environments above which a matrix product is the faster way.
_MANY_COLUMNS = 1.0 / 16.0


class _Screen(NamedTuple):
    """For a first look in single precision: where in d the numbers of v go (K,), N for those of no
    function; their c and w (K,); M / w in the order of d and c M below it (N + 1, N); and the doubt
    that a |d| of 1 leaves."""

    target: Places
    centre: Floats
    weights: Floats
    matrix: RightMatrix
    doubt: float


class Grader:
    """The grades of the atoms of one element.

    inverse: M, (N, N), or (N P, N P) for the vectors dE/drho_p B, p outer; coefficients (N, P) and
    embedding: of the element; first, places (L,): B values are in columns `first` to `first` + L,
    which of the N functions, or none (-1), in each; L is a multiple of LANES.
    """

    def __init__(
        self,
        inverse: Floats,
        coefficients: Floats,
        embedding: Embedding,
        first: int,
        places: Ints,
    ) -> None:
        (n, n_densities), self._width = coefficients.shape, len(places)
        self._first, self._embedding = first, embedding
        self._linear = len(inverse) == n
        place = np.argsort(places, kind="stable")[len(places) - n :]
        self._coefficients = np.zeros((self._width, n_densities))
        self._coefficients[place] = coefficients
        copies = self._width * np.arange(1 if self._linear else n_densities)
        index = (copies[:, None] + place).reshape(-1)
        # The transpose of M, in places: a column is contiguous.
        self._columns = np.zeros((len(inverse), self._width * len(copies)))
        self._columns[:, index] = inverse.T
        self._screen = _screen(inverse, index, self._columns.shape[1])

    def grades(self, values: Floats, rows: Ints) -> Floats:
        """Grades (n,) of some rows of the B values (any, >= first + L), in C order.

        Needs memory for a few matrices (n, N P).
        """
        if not self._columns.size:
            return np.zeros(len(rows))
        if self._linear:
            return self._largest(values, self._first, rows)
        block = values[rows, self._first : self._first + self._width]
        slopes = self._embedding.derivative(block @ self._coefficients)
        # Rows of Pacemaker's non-linear active sets: a copy of B for each density.
        vectors = (slopes[:, :, None] * block[:, None, :]).reshape(len(block), -1)
        return self._largest(vectors, 0, np.arange(len(block)))

    def _largest(self, values: Floats, first: int, rows: Ints) -> Floats:
        """max |v M| of the vectors from column `first` on in some rows."""
        screen = self._screen
        if screen is None:
            return self._in_double(values, first, rows)
        n = len(rows)
        tiles, norms = screen.matrix.empty_tiles(n), np.empty(n)
        _scale(values, first, rows, screen.target, screen.centre, screen.weights, tiles, norms)
        largest, grades = np.empty(n, dtype=np.int32), np.empty(n)
        # What is too large for single precision is looked at in double precision.
        with np.errstate(over="ignore", invalid="ignore"):
            products = screen.matrix.products(tiles)
            _fill_largest(products.view(np.int32), largest)
            least = largest.view(np.float32) - screen.doubt * norms
        done = _decide(values, first, rows, products, least, self._columns, grades)
        if done < n:
            grades[done:] = self._in_double(values, first, rows[done:])
        return grades

    def _in_double(self, values: Floats, first: int, rows: Ints) -> Floats:
        product = values[rows, first : first + self._columns.shape[1]] @ self._columns.T
        # Of numbers that are all 0 the minimum may be -0.
        grades: Floats = np.abs(np.maximum(product.max(axis=1), -product.min(axis=1)))
        return grades


def _screen(inverse: Floats, index: Ints, width: int) -> _Screen | None:
    """None where single precision would decide nothing: for matrices that are almost singular, as
    those of active sets that were short of environments. The rows of the inverse are for the
    numbers `index` (N,) of the `width` ones of v."""
    if not len(inverse):
        return None
    try:
        active = np.linalg.inv(inverse)
    except np.linalg.LinAlgError:
        return None
    centre = active.mean(axis=0)
    weights = np.abs(inverse).max(axis=1)
    weights[weights == 0.0] = 1.0
    d = (active - centre) * weights
    order = np.argsort(np.median(np.abs(d), axis=0), kind="stable")
    d, shift = d[:, order], centre @ inverse
    with np.errstate(all="ignore"):
        matrix = np.vstack([(inverse / weights[:, None])[order], shift]).astype(np.float32)
        right = RightMatrix.packed(matrix, has_wide_vectors())
        tiles = right.tiles_of(np.pad(d, ((0, 0), (0, 1)), constant_values=1.0))
        products = right.products(tiles)[: len(d), : len(d)]
        norms = np.linalg.norm(d, axis=1)
        errors = np.abs(products - np.eye(len(d))).max(axis=1) / norms
    doubt = _ERRORS * max(float(errors.max()), _LEAST_ERROR)
    # Written so that NaN, which compares false, is too much.
    if not np.median(doubt * norms) <= _MOST_DOUBT:
        return None
    target = np.full(width, len(d), dtype=np.uint64)
    target[index[order]] = np.arange(len(d))
    in_places = np.zeros((2, width))
    in_places[:, index] = centre, weights
    return _Screen(target, in_places[0], in_places[1], right, doubt)


@kernel
def _scale(
    values: Floats,
    first: int,
    rows: Ints,
    target: Places,
    centre: Floats,
    weights: Floats,
    tiles: Singles,
    norms: Floats,
) -> None:
    """Fill `tiles` (tiles, N + 1, rows of one) with d and 1, and `norms` (n,) with |d|."""
    height = tiles.shape[2]
    for i in range(len(rows)):
        at, total = rows[i] * values.shape[1] + first, spread(0.0)
        out = tiles[i // height, :, i % height]
        for k in range(0, len(target), LANES):
            d = (load(values, at + k) - load(centre, k)) * load(weights, k)
            total = total + d * d
            out[target[k]], out[target[k + 1]] = pick(d, 0), pick(d, 1)
            out[target[k + 2]], out[target[k + 3]] = pick(d, 2), pick(d, 3)
        out[len(out) - 1] = 1.0
        norms[i] = np.sqrt(pick(total, 0) + pick(total, 1) + pick(total, 2) + pick(total, 3))


@kernel
def _fill_largest(bits: NDArray[np.int32], largest: NDArray[np.int32]) -> None:
    """The largest magnitudes in the first rows of single precision numbers, all given as their
    bits: these have the order of the magnitudes, with NaN above all."""
    for i in range(len(largest)):
        most = np.int32(0)
        for j in range(bits.shape[1]):
            most = max(most, np.int32(bits[i, j] & np.int32(0x7FFFFFFF)))
        largest[i] = most


@inlined
def _dot(left: Floats, i: int, right: Floats, j: int, size: int) -> float:
    """Sum of the products of `size` numbers from i and from j on."""
    a, b, c, d = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
    many = size - size % (4 * LANES)
    for k in range(0, many, 4 * LANES):
        a = a + load(left, i + k) * load(right, j + k)
        b = b + load(left, i + k + LANES) * load(right, j + k + LANES)
        c = c + load(left, i + k + 2 * LANES) * load(right, j + k + 2 * LANES)
        d = d + load(left, i + k + 3 * LANES) * load(right, j + k + 3 * LANES)
    for k in range(many, size, LANES):
        a = a + load(left, i + k) * load(right, j + k)
    a = (a + b) + (c + d)
    total: float = pick(a, 0) + pick(a, 1) + pick(a, 2) + pick(a, 3)
    return total


@kernel
def _decide(
    values: Floats,
    first: int,
    rows: Ints,
    products: Singles,
    least: Floats,
    columns: Floats,
    grades: Floats,
) -> int:
    """Fill `grades` (n,) from the columns whose products (n, N) are not less than `least` (n,).
    Returns how many were done when the work became too much."""
    (n_columns, size), width = columns.shape, values.shape[1]
    left = int(_MANY_COLUMNS * n_columns * len(rows))
    for i in range(len(rows)):
        grade, bound, row, at = 0.0, least[i], products[i], rows[i] * width + first
        for j in range(n_columns):
            # Written so that NaN, which compares false, is looked at.
            if not abs(row[j]) < bound:
                total = _dot(values, at, columns, j * size, size)
                if abs(total) > grade or total != total:
                    grade = abs(total)
                left -= 1
        if left < 0:
            return i
        grades[i] = grade
    return len(rows)
