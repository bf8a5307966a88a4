"""MaxVol active sets: the training environments that span all others with small coefficients.

The extrapolation grade of an environment with basis values b is gamma = max |b M|, where M is the
inverse of the matrix A of active environments. A is chosen among the training environments so
that |det A| cannot be raised by a factor of more than ``tol`` by exchanging one row, which is the
same as gamma <= tol for every one of them.

Too few independent environments (a perfect crystal has one) would leave A singular. The search
therefore starts from F pseudo-rows, ``floor`` times the typical value of each column, and every
real environment that raises |det A| takes the place of one. A pseudo-row that is left stands for a
direction in which the training environments do not differ by more than ``floor`` of that typical
value: a new environment that differs there by the full typical value has a gamma of the order of
1/floor, which is large but finite.

Sources: Goreinov et al., "How to find a good submatrix", in Matrix Methods (2010), p. 247;
Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017); Lysogorskiy et al.,
Phys. Rev. Mater. 7, 043801 (2023).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import lu

from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.errors import FitError

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 1.001
FLOOR = 1e-6
BLOCK_ROWS = 2048
_MAX_SWEEPS = 100
# Environments of this share of the tolerance may come above it when others are exchanged.
_NEARLY = 0.9
_PSEUDO = -1
KNOWN_BEFORE = -2


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """The active environments of one element.

    Attributes:
        rows: (F, F) basis values of the active environments, pseudo-rows included.
        inverse: (F, F) M of gamma = max |b M|.
        indices: (F,) position of each active environment among all those seen, -1 = pseudo-row,
            -2 = from an active set whose environments have no numbers.
        n_seen: number of environments looked at.
    """

    rows: Matrix
    inverse: Matrix
    indices: Indices
    n_seen: int

    @property
    def n_pseudo(self) -> int:
        """How many rows no training environment could replace."""
        return int(np.count_nonzero(self.indices == _PSEUDO))

    @classmethod
    def from_inverse(cls, inverse: Matrix) -> "ActiveSet":
        """The active set of a potential file, whose environments are no longer known by number."""
        rows = np.asarray(np.linalg.inv(inverse), dtype=np.float64)
        return cls(rows, inverse, np.full(len(rows), KNOWN_BEFORE, dtype=np.int64), 0)

    def gamma(self, values: Matrix) -> NDArray[np.float64]:
        """(n,) extrapolation grades of environments with basis values (n, F)."""
        if not len(values):
            return np.zeros(0)
        return np.asarray(np.max(np.abs(values @ self.inverse), axis=1))


def maxvol(matrix: Matrix, tol: float = TOLERANCE, start: Indices | None = None) -> Indices:
    """Rows of a tall (n, F) matrix of full column rank whose square submatrix is dominant.

    ``start`` (F,) are rows to begin from; without it, those of Gaussian elimination with partial
    pivoting. Returns (F,) row indices. Raises FitError when the rank is less than F: use
    `select_active_set` then.
    """
    n, size = matrix.shape
    if n < size:
        raise FitError(f"MaxVol needs at least {size} rows for {size} columns, but there are {n}.")
    rows = _pivot_rows(matrix) if start is None else np.array(start, dtype=np.int64)
    square = matrix[rows]
    if np.linalg.matrix_rank(square) < size:
        raise FitError(f"MaxVol needs a matrix of rank {size}, but the start rows have less.")
    coefficients = np.ascontiguousarray(np.linalg.solve(square.T, matrix.T).T)
    _swap(coefficients, rows, tol, 100 * size + 100)
    return rows


def select_active_set(
    blocks: Callable[[], Iterable[Matrix]],
    scale: NDArray[np.float64],
    tol: float = TOLERANCE,
    floor: float = FLOOR,
    start: ActiveSet | None = None,
    threads: int = 1,
) -> ActiveSet:
    """Choose the active environments of one element from blocks of basis values.

    ``blocks()`` yields (n_i, F) arrays and is called once per sweep, so that no more than one block
    is in memory; sweeps end when a whole one changes nothing. ``scale`` (F,) is the typical
    magnitude of each column (see `column_scale`); columns are divided by it for the search, gamma
    does not depend on it. ``start`` continues from an earlier active set: the environments of
    ``blocks`` are then numbered from ``start.n_seen`` on.

    Raises FitError when the search does not settle (columns that are dependent to rounding).
    """
    size = len(scale)
    if start is None:
        rows, indices = floor * np.eye(size), np.full(size, _PSEUDO, dtype=np.int64)
        for numbers, block in _pieces(blocks(), None):
            _take(rows, indices, _eliminate(rows, block / scale), numbers, block / scale)
    else:
        rows, indices = start.rows / scale, start.indices.copy()
    for _ in range(_MAX_SWEEPS):
        inverse = np.asarray(np.linalg.inv(rows), dtype=np.float64)
        pool, n_seen = _Pool(size, tol), 0 if start is None else start.n_seen
        graded = partial(_graded, scale, inverse)
        for numbers, block, products in in_threads(graded, _pieces(blocks(), start), threads):
            pool.add(numbers, block, products)
            n_seen = max(n_seen, int(numbers.max(initial=-1)) + 1)
        if not pool.above:
            return ActiveSet(rows * scale, inverse / scale[:, None], indices, n_seen)
        coefficients, chosen = pool.coefficients, np.full(size, -1, dtype=np.int64)
        # The pseudo-rows make the first swaps huge; later ones are ordinary.
        _swap(coefficients, chosen, tol, 100 * size + 100)
        _take(rows, indices, chosen, pool.numbers, pool.rows)
    raise FitError(
        f"The active set of {size} functions did not settle in {_MAX_SWEEPS} sweeps; "
        "use fewer functions or a larger active_set_floor."
    )


def _graded(
    scale: NDArray[np.float64], inverse: Matrix, piece: tuple[Indices, Matrix]
) -> tuple[Indices, Matrix, Matrix]:
    """Numbers, scaled rows and coefficients of some environments."""
    scaled = piece[1] / scale
    return piece[0], scaled, scaled @ inverse


class _Pool:
    """The environments of a sweep that are worth a place among the active ones, or nearly so."""

    def __init__(self, size: int, tol: float) -> None:
        self._most, self._tol = BLOCK_ROWS + size, tol
        self.above = False
        self.rows, self.coefficients = np.empty((0, size)), np.empty((0, size))
        self.numbers = np.empty(0, dtype=np.int64)
        self._grades = np.empty(0)

    def add(self, numbers: Indices, rows: Matrix, coefficients: Matrix) -> None:
        """Keep the rows (n, F) that extrapolate most; drop others when there are too many."""
        grades = np.abs(coefficients).max(axis=1, initial=0.0)
        self.above |= bool((grades > self._tol).any())
        near = grades > _NEARLY * self._tol
        parts = (
            (self._grades, grades), (self.numbers, numbers),
            (self.rows, rows), (self.coefficients, coefficients),
        )  # fmt: skip
        merged = [np.concatenate([old, new[near]]) for old, new in parts]
        best = np.sort(np.argsort(-merged[0], kind="stable")[: self._most])
        self._grades, self.numbers, self.rows, self.coefficients = (part[best] for part in merged)


def _take(rows: Matrix, indices: Indices, chosen: Indices, numbers: Indices, new: Matrix) -> None:
    """Put row ``chosen[k]`` of ``new`` in place k where it is not -1."""
    replaced = chosen >= 0
    rows[replaced] = new[chosen[replaced]]
    indices[replaced] = numbers[chosen[replaced]]


def column_scale(sum_of_squares: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(F,) root mean square of each column from its sum of squares over ``count`` rows.

    A column that is zero throughout, such as one of an element that is nobody's neighbour, takes
    the mean scale of the others (1 if all are zero).
    """
    scale = np.sqrt(sum_of_squares / max(count, 1))
    largest = scale.max(initial=0.0)
    # Below this a column is rounding noise, and dividing by its size would make it count.
    used = scale > 1e-12 * largest
    return np.where(used, scale, scale[used].mean() if largest > 0 else 1.0)


def _eliminate(rows: Matrix, block: Matrix) -> Indices:
    """Pivot rows of ``rows`` and ``block`` together: far fewer swaps are left than from ``rows``.

    Returns (F,) the row of ``block`` that takes each place, -1 where the one of ``rows`` stays.
    """
    size = len(rows)
    pivots = _pivot_rows(np.concatenate([rows, block]))
    chosen = np.full(size, -1, dtype=np.int64)
    # Who of the first rows stays keeps its place.
    free = np.setdiff1d(np.arange(size), pivots)
    chosen[free] = pivots[pivots >= size] - size
    return chosen


@njit(cache=True, nogil=True, fastmath=False)
def _swap(coefficients: Matrix, chosen: Indices, tol: float, limit: int) -> int:
    """Exchange the row with the largest coefficient until none exceeds ``tol``.

    ``coefficients`` (n, F) = block times the inverse of the active rows, updated in place by the
    rank-one formula C' = C - C[:, j] (C[i] - e_j) / C[i, j] when row i replaces active row j.
    """
    n, size = coefficients.shape
    best, row, column = 0.0, 0, 0
    for i in range(n):
        for k in range(size):
            value = abs(coefficients[i, k])
            if value > best:
                best, row, column = value, i, k
    pivot = np.empty(size)
    swaps = 0
    while best > tol and swaps < limit:
        swaps += 1
        chosen[column] = row
        scale = 1.0 / coefficients[row, column]
        for k in range(size):
            pivot[k] = coefficients[row, k] * scale
        pivot[column] -= scale
        source = column
        best = 0.0
        for i in range(n):
            factor = coefficients[i, source]
            for k in range(size):
                value = coefficients[i, k] - factor * pivot[k]
                coefficients[i, k] = value
                if abs(value) > best:
                    best, row, column = abs(value), i, k
    return swaps


def _pieces(blocks: Iterable[Matrix], start: ActiveSet | None) -> Iterator[tuple[Indices, Matrix]]:
    """Numbers and values of the environments, at most BLOCK_ROWS at a time, earlier ones first."""
    position = 0
    if start is not None:
        # An early environment that loses its place can deserve another one later.
        real = start.indices != _PSEUDO
        yield start.indices[real], start.rows[real]
        position = start.n_seen
    for block in blocks:
        for first in range(0, len(block), BLOCK_ROWS):
            piece = block[first : first + BLOCK_ROWS]
            yield np.arange(position, position + len(piece)), piece
            position += len(piece)


def _pivot_rows(matrix: Matrix) -> Indices:
    """Rows picked by Gaussian elimination with partial pivoting."""
    permutation = lu(matrix, p_indices=True)[0]
    return np.argsort(permutation)[: matrix.shape[1]].astype(np.int64)
