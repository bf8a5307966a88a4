"""Which functions of a large basis the labels need.

The first functions in order of degree are a good basis for any material, and of many more some are
better for this one. They are found by backward elimination: of the fit with all, those functions
are left out, a few per cent at a time, that raise the sum of squares least when all others adapt.
For a function f with coefficient c_f and H the matrix of the regularised normal equations that is
c_f^2 / (H^-1)_ff, so one inverse tells it of all functions at once (B. Hassibi and D. G. Stork,
NIPS 5, 164 (1993); for a linear model it is exact).

Choosing functions is part of the fit: the error of a held-out fold is that of functions chosen
without the fold. Chosen with it, held-out errors of germanium were a tenth too small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from aiida_autopipe.core.ace.equations import (
    NOT_FINITE,
    Choice,
    Equations,
    column_scaling,
    scaled_matrix,
)
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.errors import FitError

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Share of the functions of an element that go before all are looked at again. Germanium, 600 of
# 2400: held-out errors were 1 % larger with 20 %.
_STEP = 0.06
# Added to the diagonal, which is 1, where the normal equations alone are singular to rounding.
_LEAST_RIDGE = 1e-12
_MORE_RIDGE = 100.0


@dataclass(frozen=True, eq=False)
class Pruned:
    """Functions of a basis that were chosen, in their order.

    kept: for all labels; kept_without: without each fold in turn, none with a single fold.
    """

    kept: Indices
    kept_without: list[Indices]


def pruned(
    equations: Equations, choice: Choice, offsets: Indices, most: int, threads: int
) -> Pruned:
    """Choose at most ``most`` functions for each element.

    ``offsets`` (elements + 1,): functions of element k are offsets[k]:offsets[k + 1]. The mean of
    the prior must be zero. Raises FitError when the sums are not finite.
    """

    def kept(fold: int | None) -> Indices:
        matrix, right = equations.assemble(choice.weights, fold)
        return _eliminate(matrix, right, equations.degrees, choice, offsets, most)

    folds = range(equations.n_folds) if equations.n_folds > 1 else []
    first, *others = in_threads(kept, [None, *folds], threads)
    return Pruned(first, others)


def _eliminate(
    matrix: Array, right: Array, degrees: Array, choice: Choice, offsets: Indices, most: int
) -> Indices:
    left = np.arange(len(right))
    element = np.searchsorted(offsets, left, side="right") - 1
    while True:
        excess = np.bincount(element[left], minlength=len(offsets) - 1) - most
        if not (excess > 0).any():
            return left
        losses = _losses(matrix[np.ix_(left, left)], right[left], degrees[left], choice)
        dropped = []
        for k in np.flatnonzero(excess > 0):
            mine = np.flatnonzero(element[left] == k)
            n = min(int(excess[k]), max(1, int(_STEP * len(mine))))
            # Of equal ones, such as those no label touches, the roughest go first.
            order = np.lexsort((-degrees[left][mine], losses[mine]))
            dropped.append(mine[order[:n]])
        left = np.delete(left, np.concatenate(dropped))


def _losses(matrix: Array, right: Array, degrees: Array, choice: Choice) -> Array:
    """(F,) what the sum of squares and the penalty grow by without each function."""
    losses = np.zeros(len(right))
    if not np.isfinite(matrix).all():
        raise FitError(NOT_FINITE)
    if not matrix.any():
        return losses
    scale = column_scaling(np.diag(matrix), choice.penalty(degrees))
    touched = scale > 0
    ridge = max(choice.regularisation, _LEAST_RIDGE)
    while True:
        scaled = scaled_matrix(matrix, scale, ridge, None)
        factor, failed = dpotrf(scaled, lower=1, overwrite_a=1)
        if not failed:
            break
        ridge *= _MORE_RIDGE
    solution, _ = dpotrs(factor, (right * scale)[touched], lower=1)
    inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
    losses[touched] = solution**2 / np.diag(inverse)
    return losses
