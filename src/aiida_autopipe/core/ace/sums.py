"""Sums over the rows of a least-squares problem, so that memory does not grow with the data.

Two forms with one interface. `GramSums` adds up the normal equations X^T X and X^T y: fast, and
exact enough for a scaled and regularised fit. `TriangularSums` keeps the triangular factor R of a
QR factorisation of [X y] and updates it block by block (Golub and Van Loan, Matrix Computations,
section 5.3 and 6.5): the condition number is not squared, at about four times the cost.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.linalg.blas import dsyrk

Array = NDArray[np.float64]


class Sums(Protocol):
    """What a fit needs to know of the rows X (k, F) with targets y (k,) and weights w (k,)."""

    weight: float
    count: int

    @property
    def lower(self) -> Array:
        """(F, F) whose lower triangle is that of X^T W X; the rest means nothing."""

    @property
    def moment(self) -> Array:
        """X^T W y, (F,)."""

    @property
    def square(self) -> float:
        """y^T W y."""

    def add_rows(self, rows: Array, targets: Array, weight: Array) -> None:
        """Add rows (k, F) with targets (k,); weight (k,) multiplies their squared residuals."""

    def add(self, other: Self) -> None:
        """Add the rows of other sums."""

    def factor(self) -> Array:
        """(F + 1, F + 1) upper triangular R with R^T R = [X y]^T W [X y]."""

    def part(self, functions: NDArray[np.int64]) -> Self:
        """The sums for some of the columns of X, in ascending order."""


class GramSums:
    """X^T W X, X^T W y and y^T W y."""

    def __init__(self, size: int) -> None:
        # Fortran order: BLAS adds to it in place.
        self.lower = np.zeros((size, size), order="F")
        self.moment = np.zeros(size)
        self.square = 0.0
        self.weight = 0.0
        self.count = 0

    def add_rows(self, rows: Array, targets: Array, weight: Array) -> None:
        """Add rows; those of zero weight (buffer atoms) leave no trace, whatever their target."""
        matrix, values, used = weighted_rows(rows, targets, weight)
        if len(values):
            self.lower = dsyrk(1.0, matrix, beta=1.0, c=self.lower, trans=1, lower=1, overwrite_c=1)
            self.moment += matrix.T @ values
            self.square += float(values @ values)
            self.weight += float(used.sum())
            self.count += len(values)

    def add(self, other: GramSums) -> None:
        """Add the rows of other sums."""
        self.lower += other.lower
        self.moment += other.moment
        self.square += other.square
        self.weight += other.weight
        self.count += other.count

    def factor(self) -> Array:
        """R from the eigenvalues of the sums, which may be semidefinite to rounding."""
        size = len(self.moment)
        full = np.zeros((size + 1, size + 1))
        full[:size, :size] = symmetric(self.lower)
        full[:size, size] = full[size, :size] = self.moment
        full[size, size] = self.square
        values, vectors = np.linalg.eigh(full)
        return _triangle(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)

    def part(self, functions: NDArray[np.int64]) -> GramSums:
        """The sums for some of the columns of X, in ascending order."""
        result = GramSums(0)
        result.lower = np.asfortranarray(self.lower[np.ix_(functions, functions)])
        result.moment = self.moment[functions]
        result.square, result.weight, result.count = self.square, self.weight, self.count
        return result


class TriangularSums:
    """The factor R of [X y], in which nothing is squared."""

    def __init__(self, size: int) -> None:
        self._r = np.zeros((size + 1, size + 1))
        self.weight = 0.0
        self.count = 0

    @property
    def lower(self) -> Array:
        """X^T W X, (F, F), computed when asked for."""
        inner = self._r[:-1, :-1]
        return np.asarray(inner.T @ inner)

    @property
    def moment(self) -> Array:
        """X^T W y, (F,)."""
        return np.asarray(self._r[:-1, :-1].T @ self._r[:-1, -1])

    @property
    def square(self) -> float:
        """y^T W y."""
        return float(self._r[:, -1] @ self._r[:, -1])

    def add_rows(self, rows: Array, targets: Array, weight: Array) -> None:
        """Add rows; those of zero weight (buffer atoms) leave no trace, whatever their target."""
        matrix, values, used = weighted_rows(rows, targets, weight)
        if len(values):
            self._r = _triangle(np.vstack([self._r, np.column_stack([matrix, values])]))
            self.weight += float(used.sum())
            self.count += len(values)

    def add(self, other: TriangularSums) -> None:
        """Add the rows of other sums."""
        self._r = _triangle(np.vstack([self._r, other._r]))
        self.weight += other.weight
        self.count += other.count

    def factor(self) -> Array:
        """(F + 1, F + 1) upper triangular R with R^T R = [X y]^T W [X y]."""
        return self._r

    def part(self, functions: NDArray[np.int64]) -> TriangularSums:
        """The sums for some of the columns of X, in ascending order."""
        result = TriangularSums(0)
        result._r = _triangle(self._r[:, np.append(functions, len(self._r) - 1)])
        result.weight, result.count = self.weight, self.count
        return result


def symmetric(lower: Array) -> Array:
    """The full matrix of a lower triangle."""
    full = np.tril(lower)
    full += np.tril(lower, -1).T
    return np.asarray(full)


def weighted_rows(rows: Array, targets: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Rows and targets times the root of their weight, and the weights, without those of zero."""
    used = weight > 0
    if used.all() and (weight == 1.0).all():
        return rows, targets, weight
    root = np.sqrt(weight[used])
    return np.multiply(rows[used], root[:, None], order="F"), targets[used] * root, weight[used]


def _triangle(matrix: Array) -> Array:
    """The square R of a QR factorisation of a tall matrix."""
    return np.asarray(qr(matrix, mode="r", overwrite_a=True, check_finite=False)[0])[
        : matrix.shape[1]
    ]
