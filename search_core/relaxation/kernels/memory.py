"""Arrays by their addresses, so that a call need not unpack dozens of arrays."""

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import carray
from numba.core import types

from search_core.relaxation.kernels.compiling import compiled, intrinsic

pointer_to: Final[Any] = types.CPointer  # type: ignore[attr-defined]
"""The type of addresses of numbers of a type."""


def pointer_maker(kind: Any) -> Callable[..., Any]:
    """Makes a function from an address in bytes to a pointer.

    Args:
        kind: The type of the numbers that it points to.
    """

    @intrinsic
    def pointer(_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], ir.PointerType(context.get_value_type(kind)))

        return pointer_to(kind)(types.int64), generate

    return pointer


integers = pointer_maker(types.int64)
doubles = pointer_maker(types.float64)


@intrinsic
def _integers_of(_context: Any, pointer: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = context.get_value_type(types.int64)
        return builder.bitcast(args[0], ir.PointerType(kind))

    return pointer_to(types.int64)(pointer), generate


@compiled
def integers_at(pointer: Any, size: int) -> Any:
    """The integers that a pointer to other numbers points to.

    Args:
        pointer: Where they begin.
        size: How many there are.
    """
    return carray(_integers_of(pointer), size)


@intrinsic
def _pointer(_context: Any, address: Any, like: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(signature.args[1].dtype)
        return builder.inttoptr(args[0], ir.PointerType(kind))

    return pointer_to(like.dtype)(types.int64, like), generate


@compiled
def array_at(address: int, like: Any, size: int) -> Any:
    """The numbers at an address.

    Args:
        address: Where they begin, in bytes.
        like: An array of the same type.
        size: How many there are.
    """
    return carray(_pointer(address, like), size)
