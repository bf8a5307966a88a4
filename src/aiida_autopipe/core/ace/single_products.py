"""Products of matrices in single precision with sixteen numbers an instruction.

A BLAS library has to know a processor to use all of its width: OpenBLAS 0.3.31 takes a Zen 5 for a
Haswell and does 130 of 250 GFLOP/s on it. The compiler that makes our kernels asks the processor
itself. Where it has no vectors of this width BLAS is as good, and used.

The right matrix is packed into panels of COLUMNS columns, the left one into tiles of TILE rows,
both (count, K, width): what a tile of the result needs lies one after the other, and its sums stay
in registers, as in K. Goto and R. A. van de Geijn, ACM Trans. Math. Softw. 34, 12 (2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from aiida_autopipe.core.ace.lanes import intrinsic, kernel

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]

# 24 of the 32 registers hold the results, two the numbers of the right matrix.
TILE, _WIDTH, _VECTORS = 12, 16, 2
COLUMNS = _WIDTH * _VECTORS
_VECTOR = ir.VectorType(ir.FloatType(), _WIDTH)
_LANE = ir.IntType(32)


@cache
def has_wide_vectors() -> bool:
    """Whether the processor has vectors of sixteen single precision numbers."""
    return bool(llvm.get_host_cpu_features().get("avx512f", False))


@dataclass(frozen=True, eq=False)
class RightMatrix:
    """A matrix (K, N) that others are multiplied with.

    Attributes:
        tile: rows of a tile of the left matrices.
        panels: (panels, K, COLUMNS), filled up with zeros; for BLAS (K, N).
    """

    tile: int
    panels: Singles

    @classmethod
    def packed(cls, matrix: Singles, wide: bool) -> RightMatrix:
        """Ready for products with the kernel, or with BLAS."""
        n_rows, n_columns = matrix.shape
        if not wide:
            return cls(1, matrix)
        filled = np.pad(matrix, ((0, 0), (0, -n_columns % COLUMNS)))
        panels = filled.reshape(n_rows, -1, COLUMNS).swapaxes(0, 1)
        return cls(TILE, np.ascontiguousarray(panels))

    def empty_tiles(self, n: int) -> Singles:
        """(tiles, K, tile) for n rows of a left matrix: row i is [i // tile, :, i % tile]."""
        tiles = np.empty((-(-n // self.tile), self.panels.shape[-2], self.tile), dtype=np.float32)
        # What is beyond the last row is multiplied too, and some numbers take their time.
        if n % self.tile:
            tiles[-1] = 0.0
        return tiles

    def tiles_of(self, left: Floats) -> Singles:
        """The tiles of a left matrix (n, K)."""
        filled = np.pad(left, ((0, -len(left) % self.tile), (0, 0))).astype(np.float32)
        tiles = filled.reshape(-1, self.tile, left.shape[1]).swapaxes(1, 2)
        return np.ascontiguousarray(tiles)

    def products(self, tiles: Singles) -> Singles:
        """(rows, >= N) products; those beyond the last row and the last column mean nothing."""
        if self.panels.ndim == 2:
            return np.asarray(tiles[:, :, 0] @ self.panels)
        result = np.empty((tiles.shape[0] * TILE, len(self.panels) * COLUMNS), dtype=np.float32)
        _multiply(tiles, self.panels, result)
        return result


@kernel
def _multiply(tiles: Singles, panels: Singles, result: Singles) -> None:
    size, stride = tiles.shape[1], result.shape[1]
    for p in range(len(panels)):
        for i in range(len(tiles)):
            left, at = i * size * TILE, i * TILE * stride + p * COLUMNS
            _multiply_tile(tiles, left, panels, p * size * COLUMNS, size, result, at, stride)


@intrinsic
def _multiply_tile(
    _: Any, left: Any, a: Any, right: Any, b: Any, size: Any, result: Any, c: Any, stride: Any
) -> Any:
    """Products of the tile at left[a] and the panel at right[b], `size` long, to result[c] and the
    rows below it, `stride` apart."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def place(array: int, index: int) -> Any:
            data = cgutils.create_struct_proxy(sig.args[array])(context, builder, args[array]).data
            return builder.gep(data, [as_index(index)])

        def as_index(k: int) -> Any:
            return context.cast(builder, args[k], sig.args[k], types.intp)

        totals = [
            [cgutils.alloca_once(builder, _VECTOR) for _ in range(_VECTORS)] for _ in range(TILE)
        ]
        _emit_sums(builder, place(0, 1), place(2, 3), as_index(4), totals)
        for row, vectors in enumerate(totals):
            begin = builder.gep(place(5, 6), [builder.mul(as_index(7), _index(row))])
            for k, total in enumerate(vectors):
                builder.store(builder.load(total), _vector_at(builder, begin, k), align=4)
        return context.get_dummy_value()

    return types.void(left, a, right, b, size, result, c, stride), emit


def _index(k: int) -> Any:
    """A constant index."""
    return ir.Constant(ir.IntType(8 * np.dtype(np.intp).itemsize), k)


def _vector_at(builder: Any, begin: Any, k: int) -> Any:
    """Pointer to the k-th vector from a number on."""
    at = builder.gep(begin, [_index(k * _WIDTH)])
    return builder.bitcast(at, _VECTOR.as_pointer())


def _emit_sums(builder: Any, left: Any, right: Any, size: Any, totals: list[list[Any]]) -> None:
    """Code that fills `totals` with the sums over `size` rows of panel and tile."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{_WIDTH}f32")
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    to_all = ir.Constant(ir.VectorType(_LANE, _WIDTH), [0] * _WIDTH)
    for total in chain(*totals):
        builder.store(ir.Constant(_VECTOR, [0.0] * _WIDTH), total)
    with cgutils.for_range(builder, size) as loop:
        column = builder.gep(left, [builder.mul(loop.index, _index(TILE))])
        panel = builder.gep(right, [builder.mul(loop.index, _index(COLUMNS))])
        numbers = [builder.load(_vector_at(builder, panel, k), align=4) for k in range(_VECTORS)]
        for row, vectors in enumerate(totals):
            one = builder.load(builder.gep(column, [_index(row)]))
            one = builder.insert_element(undefined, one, _LANE(0))
            one = builder.shuffle_vector(one, undefined, to_all)
            for number, total in zip(numbers, vectors, strict=True):
                builder.store(builder.call(fma, [one, number, builder.load(total)]), total)
