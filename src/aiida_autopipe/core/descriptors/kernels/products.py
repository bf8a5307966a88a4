"""Small dense products in registers, the inner loops of the SOAP kernels."""

from __future__ import annotations

from itertools import product
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types

from aiida_autopipe.core.ace.lanes import LANES, intrinsic

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_LANE = ir.IntType(32)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)


@intrinsic(prefer_literal=True)
def add_product(
    _: Any,
    scalars: Any,
    at_scalar: Any,
    next_row: Any,
    next_scalar: Any,
    vectors: Any,
    at_vector: Any,
    next_vector: Any,
    count: Any,
    out: Any,
    at_out: Any,
    next_out: Any,
    rows: Any,
    width: Any,
    keep: Any,
) -> Any:
    """A tile of a matrix product: `rows` rows of `width` lanes, all held in registers.

    out[at_out + i next_out + w] = sum over k < count of
    scalars[at_scalar + i next_row + k next_scalar] vectors[at_vector + k next_vector + w],
    w < LANES width, added to what is there if `keep`. `rows`, `width` and `keep` are constants.
    """
    n_rows, n_vectors, adds = (x.literal_value for x in (rows, width, keep))
    tile = list(product(range(n_rows), range(n_vectors)))

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def index(k: int) -> Any:
            return context.cast(builder, args[k], sig.args[k], types.intp)

        def pointer(k: int, *offsets: Any) -> Any:
            at = cgutils.create_struct_proxy(sig.args[k])(context, builder, args[k]).data
            for offset in offsets:
                at = builder.gep(at, [offset])
            return at

        def lanes_at(address: Any, v: int) -> Any:
            address = builder.gep(address, [context.get_constant(types.intp, LANES * v)])
            return builder.bitcast(address, _VECTOR.as_pointer())

        row_step, scalar_step, vector_step, out_step = (index(k) for k in (2, 3, 6, 10))
        outputs = []
        for i in range(n_rows):
            shift = builder.mul(context.get_constant(types.intp, i), out_step)
            outputs.append(pointer(8, index(9), shift))
        sums = {(i, v): cgutils.alloca_once(builder, _VECTOR) for i, v in tile}
        for i, v in tile:
            start = builder.load(lanes_at(outputs[i], v), align=8) if adds else _zero()
            builder.store(start, sums[i, v])
        with cgutils.for_range(builder, index(7)) as loop:
            row = pointer(4, index(5), builder.mul(loop.index, vector_step))
            loaded = [builder.load(lanes_at(row, v), align=8) for v in range(n_vectors)]
            at = pointer(0, index(1), builder.mul(loop.index, scalar_step))
            for i in range(n_rows):
                factor = _spread(builder, builder.load(at))
                at = builder.gep(at, [row_step])
                for v in range(n_vectors):
                    term = builder.fmul(factor, loaded[v])
                    builder.store(builder.fadd(builder.load(sums[i, v]), term), sums[i, v])
        for i, v in tile:
            builder.store(builder.load(sums[i, v]), lanes_at(outputs[i], v), align=8)
        return context.get_dummy_value()

    return types.void(
        scalars, at_scalar, next_row, next_scalar, vectors, at_vector, next_vector, count, out,
        at_out, next_out, rows, width, keep,
    ), emit  # fmt: skip


def _zero() -> Any:
    return ir.Constant(_VECTOR, [0.0] * LANES)


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(_UNDEFINED, value, _LANE(0))
    mask = ir.Constant(ir.VectorType(_LANE, LANES), [0] * LANES)
    return builder.shuffle_vector(one, _UNDEFINED, mask)
