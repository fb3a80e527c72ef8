"""Pieces of work as jobs that any thread can take, so that OpenMP's threads can share them.

A job is some integers, the first of which is the address of what does it: so whatever jobs are of a
kind is compiled by itself, and only where there are any.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numba
from llvmlite import ir
from numba import carray
from numba.core import types

from search_core.relaxation.kernels.compiling import intrinsic, native
from search_core.relaxation.kernels.memory import pointer_to

WORK: Final = 0
"""What does the job: the address of a kind of work."""
COLUMNS: Final = 16
"""What a job says, all together; each kind of work says what else."""


class Work:
    """A kind of work, which is compiled for a type of numbers when its address is asked for.

    Args:
        function: Of a pointer to a job. It is a pointer to numbers of the type that the job
            computes with, which says no more than that: what is there are integers.
    """

    def __init__(self, function: Callable[[Any], None]) -> None:
        self._function = function
        self._compiled: dict[int, Any] = {}

    def address(self, itemsize: int) -> int:
        """Where it is.

        Args:
            itemsize: Bytes of a number: 4 or 8.
        """
        if itemsize not in self._compiled:
            number = types.float32 if itemsize == 4 else types.float64
            self._compiled[itemsize] = native(numba.void(pointer_to(number)), self._function)
        return int(self._compiled[itemsize].address)


@intrinsic
def _next(_context: Any, counter: Any) -> Any:
    """Adds 1 to a number, and returns what it was, as if no other thread were there."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(pointer_to(types.int64)), generate


@intrinsic
def _do(_context: Any, work: Any, jobs: Any, first: Any) -> Any:
    """Calls the function at an address with a pointer to the job that begins with a number."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        address, pointer, index = args
        kind = ir.FunctionType(ir.VoidType(), [pointer.type])
        builder.call(builder.inttoptr(address, kind.as_pointer()), [builder.gep(pointer, [index])])

    return types.void(types.int64, pointer_to(types.int64), types.int64), generate


def _take(board: Any) -> None:
    """Takes jobs from a board until there are none left.

    Args:
        board: The number of the next job, how many there are, and the jobs, one behind the other.
    """
    count = carray(board, 2)[1]
    numbers = carray(board, 2 + count * COLUMNS)
    while True:
        index = _next(board)
        if index >= count:
            return
        first = 2 + index * COLUMNS
        _do(numbers[first + WORK], board, first)


@cache
def worker() -> Any:
    """A function that takes jobs from a board until there are none left, with its `address`."""
    return native(numba.void(pointer_to(types.int64)), _take)
