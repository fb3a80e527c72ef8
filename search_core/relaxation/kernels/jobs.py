"""Pieces of work as jobs that any thread can take, so that OpenMP's threads can share them.

A job is some terms of a sum, forward or backward, or some channels of a pool or a normalisation.

Legend: s stages, t terms.
"""

from typing import Any, Final

import numba
from llvmlite import ir
from numba import carray
from numba.core import types

from search_core.relaxation.kernels import chains, pool_jobs
from search_core.relaxation.kernels.compiling import compiled, intrinsic, native
from search_core.relaxation.kernels.memory import array_at, doubles, integers, pointer_to

KIND: Final = pool_jobs.KIND
"""What is to be done: 0 for a sum, forward, or one of these."""
BACKWARD: Final = 1

# What else the job of a sum says, in the order of its numbers: addresses in bytes, and sizes.
STAGES: Final = 1
NUM_STAGES: Final = 2
EPS: Final = 3
TERMS: Final = 4
NUM_TERMS: Final = 5
MULTIPLIERS: Final = 6
CHOSEN: Final = 7
NUM_CHOSEN: Final = 8
SCRATCH: Final = 9
SCRATCH_SIZE: Final = 10
BUFFERS: Final = 11
LARGEST: Final = 12
D_MULTIPLIERS: Final = 13

COLUMNS: Final = max(D_MULTIPLIERS + 1, pool_jobs.COLUMNS)


@intrinsic
def _address(_context: Any, pointer: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], ir.IntType(64))

    return types.int64(pointer), generate


@intrinsic
def _next(_context: Any, counter: Any) -> Any:
    """Adds 1 to a number, and returns what it was, as if no other thread were there."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(pointer_to(types.int64)), generate


@compiled
def _do(job: Any, scratch: Any, buffers: Any) -> None:
    if job[KIND] >= pool_jobs.POOL:
        pool_jobs.do(job, scratch)
        return
    table_s = carray(integers(job[STAGES]), (job[NUM_STAGES], chains.STAGE_COLUMNS))
    eps_s = carray(doubles(job[EPS]), job[NUM_STAGES])
    table_t = carray(integers(job[TERMS]), (job[NUM_TERMS], chains.TERM_COLUMNS))
    multipliers_t = carray(doubles(job[MULTIPLIERS]), job[NUM_TERMS])
    chosen = carray(integers(job[CHOSEN]), job[NUM_CHOSEN])
    if job[KIND] == BACKWARD:
        d_multipliers_t = carray(doubles(job[D_MULTIPLIERS]), job[NUM_TERMS])
        chains.backward(
            table_s, eps_s, table_t, multipliers_t, chosen, buffers, scratch, d_multipliers_t
        )
    else:
        chains.forward(table_s, eps_s, table_t, multipliers_t, chosen, scratch)


def _take(board: Any) -> None:
    """Takes jobs from a board until there are none left.

    Args:
        board: The number of the next job, how many there are, and the jobs, one behind the other.
            It is a pointer to numbers of the type that the jobs compute with, which says no more
            than that: the board holds integers.
    """
    like = carray(board, 1)
    counter = integers(_address(board))
    count = carray(counter, 2)[1]
    jobs = carray(counter, 2 + count * COLUMNS)
    while True:
        index = _next(counter)
        if index >= count:
            return
        job = jobs[2 + index * COLUMNS : 2 + (index + 1) * COLUMNS]
        scratch = array_at(job[SCRATCH], like, job[SCRATCH_SIZE])
        _do(job, scratch, array_at(job[BUFFERS], like, 2 * job[LARGEST]).reshape(2, -1))


def worker(itemsize: int) -> int:
    """The address of a function that takes jobs from a board until there are none left.

    Args:
        itemsize: Bytes of a number: 4 or 8.
    """
    if itemsize not in _WORKERS:
        number = types.float32 if itemsize == 4 else types.float64
        _WORKERS[itemsize] = native(numba.void(pointer_to(number)), _take)
    return int(_WORKERS[itemsize].address)


_WORKERS: dict[int, Any] = {}
