"""Vectors of four doubles as a numba type, for kernels that say themselves what runs in parallel.

The compiler finds little by itself in these kernels: arrays may overlap as far as it knows, inner
loops are short, and numba leaves straight-line code scalar. A kernel that computes with lanes is
compiled to what it says on every processor: one instruction a vector with AVX, two with SSE2 or
NEON.

`load`, `store` and `item` take a flat index into a C-ordered array of any shape and, unlike `[]`,
trust it: no bounds, no counting from the end. Lanes know +, -, * and /.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as typed_intrinsic
from numba.extending import lower_builtin, models, register_model

LANES = 4

# The decorators of all kernels. Reassociation and contraction of sums are the only liberties: they
# keep NaN, infinity and signed zero. Small parts are copied into their callers: a call costs as
# much as a hundred operations where structures of arrays are handed over.
kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
inlined = njit(
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract"},
    forceinline=True,
)
# numba's own annotation counts the typing context among the arguments of a call.
intrinsic: Any = typed_intrinsic

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_INDEX = ir.IntType(32)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)


class Lanes(types.Type):
    """The numba type of a vector of LANES doubles."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _define_operator(symbol: Any, instruction: str) -> None:
    """Let `symbol` act on two lanes, element by element."""

    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, _: Any) -> Any:
            if len(args) == 2 and args[0] is lanes and args[1] is lanes:
                return signature(lanes, lanes, lanes)
            return None

    @lower_builtin(symbol, Lanes, Lanes)
    def _lower(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_symbol, _instruction)


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Pointer to element args[1] of the array args[0]."""
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    data = cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0]).data
    return builder.gep(data, [index])


def _shuffle(builder: Any, a: Any, b: Any, mask: list[int]) -> Any:
    kind = ir.VectorType(_INDEX, len(mask))
    return builder.shuffle_vector(a, b, ir.Constant(kind, mask))


def _transposed(builder: Any, a: Any, b: Any, c: Any, d: Any) -> list[Any]:
    even, odd = [0, 4, 2, 6], [1, 5, 3, 7]
    front, back = [0, 1, 4, 5], [2, 3, 6, 7]
    ab = [_shuffle(builder, a, b, even), _shuffle(builder, a, b, odd)]
    cd = [_shuffle(builder, c, d, even), _shuffle(builder, c, d, odd)]
    return [_shuffle(builder, ab[k], cd[k], mask) for mask in (front, back) for k in (0, 1)]


@intrinsic
def item(_: Any, array: Any, index: Any) -> Any:
    """array[index] as a float64 or an integer."""
    kind = types.float64 if isinstance(array.dtype, types.Float) else types.intp

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_address(context, builder, sig, args))
        return context.cast(builder, value, sig.args[0].dtype, sig.return_type)

    return kind(array, index), emit


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """Lanes array[index] ... array[index + 3]."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig, args)
        return builder.load(builder.bitcast(address, _VECTOR.as_pointer()), align=8)

    return lanes(array, index), emit


@intrinsic
def store(_: Any, array: Any, index: Any, value: Any) -> Any:
    """Write `value` to array[index] ... array[index + 3]."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig, args)
        builder.store(args[2], builder.bitcast(address, _VECTOR.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), emit


@intrinsic
def spread(_: Any, x: Any) -> Any:
    """Lanes that all hold the float `x`."""

    def emit(__: Any, builder: Any, ___: Any, args: Any) -> Any:
        one = builder.insert_element(_UNDEFINED, args[0], _INDEX(0))
        return _shuffle(builder, one, _UNDEFINED, [0] * LANES)

    return lanes(types.float64), emit


@intrinsic
def pick(_: Any, vector: Any, k: Any) -> Any:
    """Element k of lanes."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(
            args[0], context.cast(builder, args[1], sig.args[1], types.int32)
        )

    return types.float64(vector, k), emit


@intrinsic
def root(_: Any, vector: Any) -> Any:
    """Square roots."""

    def emit(__: Any, builder: Any, ___: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        name = f"llvm.sqrt.v{LANES}f64"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return lanes(vector), emit


@intrinsic
def transpose(_: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The four columns of the matrix with rows a, b, c, d."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_tuple(builder, sig.return_type, _transposed(builder, *args))

    return types.UniTuple(lanes, LANES)(a, b, c, d), emit


@intrinsic
def sums(_: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Lanes with the sums of the elements of a, of b, of c and of d."""

    def emit(__: Any, builder: Any, ___: Any, args: Any) -> Any:
        p, q, r, s = _transposed(builder, *args)
        return builder.fadd(builder.fadd(p, q), builder.fadd(r, s))

    return lanes(a, b, c, d), emit


@intrinsic
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of array[index] before it is needed."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        address = builder.bitcast(_address(context, builder, sig, args), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, _INDEX, _INDEX, _INDEX])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, _INDEX(0), _INDEX(3), _INDEX(1)])
        return context.get_dummy_value()

    return types.void(array, index), emit
