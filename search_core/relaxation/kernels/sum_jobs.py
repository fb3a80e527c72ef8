"""Some terms of a sum as a job, forward or backward; see `jobs`.

Legend: s stages, t terms.
"""

from typing import Any, Final

from numba import carray

from search_core.relaxation.kernels import chains
from search_core.relaxation.kernels.compiling import compiled
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


@compiled
def _given(job: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The stages, their epsilons, the terms, their multipliers, and which terms to compute."""
    return (
        carray(integers(job[STAGES]), (job[NUM_STAGES], chains.STAGE_COLUMNS)),
        carray(doubles(job[EPS]), job[NUM_STAGES]),
        carray(integers(job[TERMS]), (job[NUM_TERMS], chains.TERM_COLUMNS)),
        carray(doubles(job[MULTIPLIERS]), job[NUM_TERMS]),
        carray(integers(job[CHOSEN]), job[NUM_CHOSEN]),
    )


def _forward(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    table_s, eps_s, table_t, multipliers_t, chosen = _given(job)
    scratch = array_at(job[SCRATCH], like, job[SCRATCH_SIZE])
    for t in chosen:
        chains.forward(table_s, eps_s, table_t[t], multipliers_t[t], scratch)


def _backward(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    table_s, eps_s, table_t, multipliers_t, chosen = _given(job)
    d_multipliers_t = carray(doubles(job[D_MULTIPLIERS]), job[NUM_TERMS])
    scratch = array_at(job[SCRATCH], like, job[SCRATCH_SIZE])
    buffers = array_at(job[BUFFERS], like, 2 * job[LARGEST]).reshape(2, -1)
    for t in chosen:
        d_multipliers_t[t] = chains.backward(
            table_s, eps_s, table_t[t], multipliers_t[t], buffers, scratch
        )


FORWARD: Final = Work(_forward)
"""Adds terms to their totals."""
BACKWARD: Final = Work(_backward)
"""Computes the gradients of terms."""
