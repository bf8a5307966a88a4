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

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import lu

from aiida_autopipe.core.errors import FitError

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 1.001
FLOOR = 1e-6
BLOCK_ROWS = 2048
_MAX_SWEEPS = 100


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """The active environments of one element.

    Attributes:
        rows: (F, F) basis values of the active environments, pseudo-rows included.
        inverse: (F, F) M of gamma = max |b M|.
        indices: (F,) position of each active environment among all those seen, -1 = pseudo-row.
        n_seen: number of environments looked at.
    """

    rows: Matrix
    inverse: Matrix
    indices: Indices
    n_seen: int

    @property
    def n_pseudo(self) -> int:
        """How many rows no training environment could replace."""
        return int(np.count_nonzero(self.indices < 0))

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
        rows, indices = floor * np.eye(size), np.full(size, -1, dtype=np.int64)
    else:
        rows, indices = start.rows / scale, start.indices.copy()
    for _ in range(_MAX_SWEEPS):
        swaps, n_seen = 0, 0 if start is None else start.n_seen
        for numbers, block in _pieces(blocks(), start):
            scaled = block / scale
            chosen = np.full(size, -1, dtype=np.int64)
            swaps += _improve(rows, scaled, chosen, tol)
            replaced = chosen >= 0
            rows[replaced] = scaled[chosen[replaced]]
            indices[replaced] = numbers[chosen[replaced]]
            n_seen = max(n_seen, int(numbers.max(initial=-1)) + 1)
        if not swaps:
            inverse = np.linalg.inv(rows) / scale[:, None]
            return ActiveSet(rows * scale, inverse, indices, n_seen)
    raise FitError(
        f"The active set of {size} functions did not settle in {_MAX_SWEEPS} sweeps; "
        "use fewer functions or a larger active_set_floor."
    )


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


def _improve(rows: Matrix, block: Matrix, chosen: Indices, tol: float) -> int:
    """Exchange rows of ``block`` into ``rows``; sets ``chosen``, returns the number of swaps."""
    coefficients = np.ascontiguousarray(np.linalg.solve(rows.T, block.T).T)
    # The pseudo-rows make the first swaps huge; later ones are ordinary.
    limit = 100 * len(rows) + 100
    return int(_swap(coefficients, chosen, tol, limit))


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
        real = start.indices >= 0
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
