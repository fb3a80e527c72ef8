"""Some terms of a sum as a job, forward or backward; see `jobs`.

Legend: s stages, t terms.
"""

from typing import Any, Final

from numba import carray

from search_core.relaxation.kernels import chains
from search_core.relaxation.kernels.jobs import COLUMNS, Work
from search_core.relaxation.kernels.memory import array_at, doubles, integers, integers_at

# What a job says, in the order of its numbers, behind what does it: addresses in bytes, and sizes.
STAGES: Final = 1
"""[s, chains.STAGE_COLUMNS]."""
NUM_STAGES: Final = 2
EPS: Final = 3
"""Epsilon of each stage's normalisation, [s]."""
TERMS: Final = 4
"""[t, chains.TERM_COLUMNS]."""
NUM_TERMS: Final = 5
MULTIPLIERS: Final = 6
"""[t]."""
CHOSEN: Final = 7
"""Indices of the terms to compute."""
NUM_CHOSEN: Final = 8
SCRATCH: Final = 9
"""Memory for what lies between the convolutions."""
SCRATCH_SIZE: Final = 10
BUFFERS: Final = 11
"""Memory for the gradients of two stages' inputs, [2, the largest]."""
LARGEST: Final = 12
D_MULTIPLIERS: Final = 13
"""Gradients of the multipliers, [t]; written."""


def _forward(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    table_s = carray(integers(job[STAGES]), (job[NUM_STAGES], chains.STAGE_COLUMNS))
    eps_s = carray(doubles(job[EPS]), job[NUM_STAGES])
    table_t = carray(integers(job[TERMS]), (job[NUM_TERMS], chains.TERM_COLUMNS))
    multipliers_t = carray(doubles(job[MULTIPLIERS]), job[NUM_TERMS])
    scratch = array_at(job[SCRATCH], like, job[SCRATCH_SIZE])
    for t in carray(integers(job[CHOSEN]), job[NUM_CHOSEN]):
        chains.forward(table_s, eps_s, table_t[t], multipliers_t[t], scratch)


def _backward(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    table_s = carray(integers(job[STAGES]), (job[NUM_STAGES], chains.STAGE_COLUMNS))
    eps_s = carray(doubles(job[EPS]), job[NUM_STAGES])
    table_t = carray(integers(job[TERMS]), (job[NUM_TERMS], chains.TERM_COLUMNS))
    multipliers_t = carray(doubles(job[MULTIPLIERS]), job[NUM_TERMS])
    d_multipliers_t = carray(doubles(job[D_MULTIPLIERS]), job[NUM_TERMS])
    scratch = array_at(job[SCRATCH], like, job[SCRATCH_SIZE])
    buffers = array_at(job[BUFFERS], like, 2 * job[LARGEST]).reshape(2, -1)
    for t in carray(integers(job[CHOSEN]), job[NUM_CHOSEN]):
        d_multipliers_t[t] = chains.backward(
            table_s, eps_s, table_t[t], multipliers_t[t], buffers, scratch
        )


FORWARD: Final = Work(_forward)
"""Adds terms to their totals."""
BACKWARD: Final = Work(_backward)
"""Computes the gradients of terms."""
