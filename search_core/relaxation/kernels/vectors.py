"""Vectors of one value of several images, and what kernels do with them.

A vector holds the same pixel and channel of as many images as a register has room for, so that no
kernel needs to know how channels and pixels divide by the length of a register.

Offsets count numbers, not vectors.
"""

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from search_core.relaxation.kernels.compiling import LANES, intrinsic

INT: Final = ir.IntType(64)


class Vector(types.Type):
    """As many numbers as there are lanes.

    Args:
        dtype: Their type.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, LANES))


def constant(value: int) -> Any:
    """An integer of generated code."""
    return ir.Constant(INT, value)


def pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Generates the address of a number of an array."""
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.gep(data, [offset])


def vector_type(context: Any, dtype: Any) -> Any:
    """The type of a vector in generated code."""
    return ir.VectorType(context.get_value_type(dtype), LANES)


def zeros(context: Any, dtype: Any) -> Any:
    """A vector of zeros in generated code."""
    return ir.Constant(vector_type(context, dtype), [0.0] * LANES)


def scalar_at(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Generates the number of an array at an offset."""
    return builder.load(pointer(context, builder, kind, array, offset))


def vector_at(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Generates the vector of an array that begins at an offset."""
    where = pointer(context, builder, kind, array, offset)
    where = builder.bitcast(where, vector_type(context, kind.dtype).as_pointer())
    found = builder.load(where)
    found.align = kind.dtype.bitwidth // 8
    return found


def put(context: Any, builder: Any, kind: Any, array: Any, offset: Any, vector: Any) -> None:
    """Generates the writing of a vector to an array."""
    where = pointer(context, builder, kind, array, offset)
    where = builder.bitcast(where, vector.type.as_pointer())
    builder.store(vector, where).align = kind.dtype.bitwidth // 8


def fetch_at(
    context: Any, builder: Any, kind: Any, array: Any, offset: Any, *, to_write: bool
) -> None:
    """Generates the fetching of a vector into the cache, for which nothing waits.

    The address need not be one of the array: fetching what is not there does nothing.
    """
    word = ir.IntType(32)
    where = pointer(context, builder, kind, array, offset)
    where = builder.bitcast(where, ir.IntType(8).as_pointer())
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [where.type, word, word, word]),
        "llvm.prefetch.p0",
    )
    # To the second cache, and as data; what is written has to be in the first one anyway.
    settings = (1, 3, 1) if to_write else (0, 2, 1)
    builder.call(function, [where, *(ir.Constant(word, each) for each in settings)])


def repeated(builder: Any, number: Any) -> Any:
    """Generates a vector of the same number in every lane."""
    empty = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return shuffled(builder, first, empty, [0] * LANES)


def shuffled(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    """Generates a vector of chosen numbers of two vectors."""
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(first, second, lanes)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Generates `a * b + c`, rounded once."""
    name = "f32" if isinstance(a.type.element, ir.FloatType) else "f64"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}{name}")
    return builder.call(function, [a, b, c])


@intrinsic
def load(_context: Any, array: Any, offset: Any) -> Any:
    """The vector of an array that begins at an offset."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return vector_at(context, builder, signature.args[0], *args)

    return Vector(array.dtype)(array, types.int64), generate


@intrinsic
def store(_context: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Writes a vector to an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        put(context, builder, signature.args[0], *args)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic
def fetch(_context: Any, array: Any, offset: Any) -> Any:
    """Has the vector that begins at an offset brought into the cache meanwhile."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fetch_at(context, builder, signature.args[0], *args, to_write=False)
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def splat(_context: Any, number: Any) -> Any:
    """A vector of the same number in every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return repeated(builder, args[0])

    return Vector(number)(number), generate


@intrinsic
def fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, rounded once."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return multiply_add(builder, *args)

    return a(a, b, c), generate


@intrinsic
def add(_context: Any, a: Any, b: Any) -> Any:
    """`a + b`."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return a(a, b), generate


@intrinsic
def subtract(_context: Any, a: Any, b: Any) -> Any:
    """`a - b`."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fsub(*args)

    return a(a, b), generate


@intrinsic
def multiply(_context: Any, a: Any, b: Any) -> Any:
    """`a * b`."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return a(a, b), generate


@intrinsic
def rectified(_context: Any, a: Any) -> Any:
    """`a`, but 0 where it is negative; what is not a number stays so, as in a ReLU."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        none = zeros(context, signature.args[0].dtype)
        return builder.select(builder.fcmp_ordered("<", args[0], none), none, args[0])

    return a(a), generate


@intrinsic
def where_positive(_context: Any, condition: Any, a: Any) -> Any:
    """`a` where the condition is above 0, and 0 elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        none = zeros(context, signature.args[0].dtype)
        return builder.select(builder.fcmp_ordered(">", args[0], none), args[1], none)

    return a(condition, a), generate


@intrinsic
def where_more(_context: Any, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    """`then` where `a` is above `b` or is not a number, and `otherwise` elsewhere."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        a, b, then, otherwise = args
        more = builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))
        return builder.select(more, then, otherwise)

    return a(a, a, then, then), generate


@intrinsic
def where_equal(_context: Any, a: Any, b: Any, then: Any) -> Any:
    """`then` where `a` is `b`, and 0 elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, then = args
        none = zeros(context, signature.args[0].dtype)
        return builder.select(builder.fcmp_ordered("==", a, b), then, none)

    return a(a, a, then), generate


@intrinsic
def total(_context: Any, a: Any) -> Any:
    """The sum over the lanes, added up in halves."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector, length = args[0], LANES
        while length > 1:
            length //= 2
            empty = ir.Constant(vector.type, ir.Undefined)
            low = shuffled(builder, vector, empty, list(range(length)))
            high = shuffled(builder, vector, empty, list(range(length, 2 * length)))
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return a.dtype(a), generate
