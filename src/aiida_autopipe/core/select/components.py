"""Principal components of standardised features, from one pass over the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.select.rows import Rows, Values, blocks, check_finite

CONSTANT = 1e-7
"""Standard deviation, relative to the largest value, below which a feature counts as constant."""
LANES = 8
"""Numbers of float32 in one vector register: projected rows are filled up with zeros to these."""


@dataclass(frozen=True, eq=False)
class Components:
    """A linear map from d features to m principal components.

    Attributes:
        mean: (d,) of the features.
        matrix: (d, m) what a feature minus its mean adds to each component, weights included.
        variance: (m,) eigenvalues of the correlation matrix, the largest first.
        explained: (m,) their share of the sum of all eigenvalues.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    variance: NDArray[np.float64]
    explained: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of components."""
        return len(self.variance)

    def project(self, block: Values) -> NDArray[np.float32]:
        """(k, m) components of rows, filled up with zeros to a multiple of eight columns."""
        width = -(-self.n // LANES) * LANES
        result = np.zeros((len(block), width), dtype=np.float32)
        if block.dtype == np.float32:
            # Without their means large numbers would lose their digits in the products.
            centred = block - self.mean.astype(np.float32)
            result[:, : self.n] = centred @ self.matrix.astype(np.float32)
        else:
            result[:, : self.n] = (block - self.mean) @ self.matrix
        return result


def principal_components(rows: Rows, weighted: bool = True, threads: int = 1) -> Components:
    """Components with more variance than one feature, at least one.

    The features are standardised, so the eigenvalues of their correlation matrix have the mean 1;
    those above 1 are kept (Kaiser, Educ. Psychol. Meas. 20, 141 (1960)), and the largest in any
    case. Constant features say nothing and are left out. Where all are constant the one component
    is zero. ``weighted`` multiplies each component by its share of the variance, as DIRECT does
    (Qi et al., npj Comput. Mater. 10, 43 (2024)).

    Results do not depend on ``threads``. Raises DataError for NaN, infinity, or no rows.
    """
    n, d = rows.shape
    if n == 0 or d == 0:
        raise DataError(f"The pool has {n} rows and {d} features; there is nothing to choose from.")
    shift = rows.read(0, 1)[0].astype(np.float64)

    def moments(limits: tuple[int, int]) -> tuple[Any, Any]:
        block = rows.read(*limits)
        check_finite(block, limits[0])
        centred = block.astype(np.float64) - shift
        return centred.sum(axis=0), centred.T @ centred

    total, products = np.zeros(d), np.zeros((d, d))
    for part, part_products in in_threads(moments, blocks(rows), threads):
        total += part
        products += part_products
    offset = total / n
    covariance = products / n - np.outer(offset, offset)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    mean = shift + offset
    varies = deviation > CONSTANT * np.maximum(np.abs(mean), np.abs(offset)).clip(1e-300)
    scale = np.where(varies, deviation, 1.0)
    correlation = covariance / np.outer(scale, scale)
    correlation[~varies] = correlation[:, ~varies] = 0.0
    values, vectors = np.linalg.eigh(correlation)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    kept = max(1, int(np.sum(values > 1.0)))
    values, vectors = values[:kept], vectors[:, :kept]
    # The sign of an eigenvector is arbitrary: the largest entry is made positive.
    largest = np.argmax(np.abs(vectors), axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(kept)] < 0, -1.0, 1.0)
    explained = values / max(float(varies.sum()), 1.0)
    weights = explained if weighted else np.ones(kept)
    matrix = np.where(varies, 1.0 / scale, 0.0)[:, None] * vectors * weights
    return Components(mean, matrix, values, explained)


class ProjectedRows:
    """Components of rows: kept where they fit, else computed again for each block."""

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(
        self, rows: Rows, components: Components, threads: int = 1, keep_bytes: int = 1 << 30
    ) -> None:
        self._rows, self._components = rows, components
        width = -(-components.n // LANES) * LANES
        self.shape: tuple[int, int] = (rows.shape[0], width)
        self._kept: NDArray[np.float32] | None = None
        if 4 * rows.shape[0] * width <= keep_bytes:
            kept = np.empty(self.shape, dtype=np.float32)

            def fill(limits: tuple[int, int]) -> None:
                kept[slice(*limits)] = components.project(rows.read(*limits))

            for _ in in_threads(fill, blocks(rows), threads):
                pass
            self._kept = kept

    def read(self, start: int, stop: int) -> Values:
        """Components of rows start to stop."""
        if self._kept is not None:
            return self._kept[start:stop]
        return self._components.project(self._rows.read(start, stop))
