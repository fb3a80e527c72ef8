"""Sums of operations, as tables say: what is computed, and where everything lies.

One call computes many operations, so that what Python adds to each is next to nothing.

Legend: s stages, t terms, i channels that come in, o channels that go out, k taps along an axis.
"""

from typing import Any, Final

import numpy as np

from search_core.relaxation.kernels import rings, stage_gradients, stages
from search_core.relaxation.kernels.compiling import LANES, compiled, inlined
from search_core.relaxation.kernels.memory import array_at
from search_core.relaxation.kernels.sums import (
    add_multiple,
    add_scaled,
    dot,
    fold,
    gradient_sums,
    norm_backward,
)

# Columns of the table of stages. Those up to DILATION say what is computed; the others are
# addresses in bytes.
IMAGES: Final = 0
INS: Final = 1
OUTS: Final = 2
HEIGHT: Final = 3
WIDTH: Final = 4
KERNEL: Final = 5
STRIDE: Final = 6
DILATION: Final = 7
MODE: Final = 8
INPUT: Final = 9
"""[g, i, h, w, l]."""
OUTPUT: Final = 10
"""[g, o, h / stride, w / stride, l]."""
STATISTICS: Final = 11
"""Mean and biased variance of the output, [2, o]."""
FOLDED: Final = 12
"""Scale and shift of its normalisation, [2, o]."""
KERNELS: Final = 13
"""[i, k, k]."""
WEIGHTS: Final = 14
"""[o, i]."""
SCALE: Final = 15
"""What the normalisation learns, [o]."""
SHIFT: Final = 16
"""Likewise."""
D_KERNELS: Final = 17
D_WEIGHTS: Final = 18
D_NORM: Final = 19
"""Gradients of scale and shift, [2, o]."""
STAGE_COLUMNS: Final = 20

# Columns of the table of terms.
FIRST: Final = 0
"""The first stage of an operation."""
NUMBER: Final = 1
"""How many there are; with none the term is a feature, a tensor that is there already."""
SIZE: Final = 2
"""Numbers of a feature."""
FEATURE: Final = 3
TOTAL: Final = 4
"""What is added to."""
D_TOTAL: Final = 5
D_SOURCE: Final = 6
"""What the gradient of a feature or of an operation's source is added to; 0 where it is not
needed."""
NEEDS_WEIGHTS: Final = 7
FIRST_OF_TOTAL: Final = 8
"""Whether the total is written instead of added to,"""
FIRST_OF_D_SOURCE: Final = 9
"""and the gradient of the source."""
TERM_COLUMNS: Final = 10


@compiled
def _sizes(stage: Any) -> rings.Sizes:
    return rings.Sizes(
        stage[IMAGES], stage[INS], stage[OUTS], stage[HEIGHT], stage[WIDTH], stage[KERNEL],
        stage[STRIDE], stage[DILATION],
    )  # fmt: skip


@compiled
def _input_size(stage: Any) -> int:
    groups = -(-stage[IMAGES] // LANES)
    return int(groups * stage[INS] * stage[HEIGHT] * stage[WIDTH] * LANES)


@compiled
def _output_shape(stage: Any) -> tuple[int, int, int]:
    """Groups, channels and pixels."""
    pixels = -(-stage[HEIGHT] // stage[STRIDE]) * -(-stage[WIDTH] // stage[STRIDE])
    return -(-stage[IMAGES] // LANES), stage[OUTS], pixels


@compiled
def _output_size(stage: Any) -> int:
    groups, channels, pixels = _output_shape(stage)
    return int(groups * channels * pixels * LANES)


@inlined
def forward(table_s: Any, eps_s: Any, term: Any, multiplier: float, scratch: Any) -> None:
    """Adds a term to its total.

    Args:
        table_s: The stages, [s, STAGE_COLUMNS].
        eps_s: Epsilon of each one's normalisation, [s].
        term: The term, [TERM_COLUMNS].
        multiplier: Its own.
        scratch: Memory for what lies between the convolutions, of the type of all tensors.
    """
    if term[NUMBER] == 0:
        size = term[SIZE]
        add_multiple(
            array_at(term[FEATURE], scratch, size), multiplier,
            array_at(term[TOTAL], scratch, size), term[FIRST_OF_TOTAL] != 0,
        )  # fmt: skip
        return
    folded = scratch
    for s in range(term[FIRST], term[FIRST] + term[NUMBER]):
        stage, outs = table_s[s], table_s[s, OUTS]
        y = array_at(stage[OUTPUT], scratch, _output_size(stage))
        statistics = array_at(stage[STATISTICS], scratch, 2 * outs)
        stages.forward(
            array_at(stage[INPUT], scratch, _input_size(stage)), stage[MODE], folded,
            array_at(stage[KERNELS], scratch, stage[INS] * stage[KERNEL] ** 2),
            array_at(stage[WEIGHTS], scratch, outs * stage[INS]), y, statistics, scratch,
            _sizes(stage),
        )  # fmt: skip
        folded = array_at(stage[FOLDED], scratch, 2 * outs)
        scale = array_at(stage[SCALE], scratch, outs)
        shift = array_at(stage[SHIFT], scratch, outs)
        fold(statistics, eps_s[s], 1.0, scale, shift, folded)
    s = term[FIRST] + term[NUMBER] - 1
    stage, outs = table_s[s], table_s[s, OUTS]
    times = np.empty(2 * outs, scratch.dtype)
    fold(
        array_at(stage[STATISTICS], scratch, 2 * outs), eps_s[s], multiplier,
        array_at(stage[SCALE], scratch, outs), array_at(stage[SHIFT], scratch, outs), times,
    )  # fmt: skip
    size = _output_size(stage)
    add_scaled(
        array_at(stage[OUTPUT], scratch, size), times,
        array_at(term[TOTAL], scratch, size), term[FIRST_OF_TOTAL] != 0, _output_shape(stage),
    )  # fmt: skip


@inlined
def backward(
    table_s: Any, eps_s: Any, term: Any, multiplier: float, buffers: Any, scratch: Any
) -> float:
    """Computes the gradients of a term.

    Args:
        table_s: The stages, [s, STAGE_COLUMNS].
        eps_s: Epsilon of each one's normalisation, [s].
        term: The term, [TERM_COLUMNS].
        multiplier: Its own.
        buffers: Memory for the gradients of two stages' inputs, [2, the largest].
        scratch: Memory for what lies between the convolutions.

    Returns:
        The gradient of the multiplier.
    """
    if term[NUMBER] == 0:
        size = term[SIZE]
        d_feature = array_at(term[D_TOTAL], scratch, size)
        if term[D_SOURCE]:
            add_multiple(
                d_feature, multiplier, array_at(term[D_SOURCE], scratch, size),
                term[FIRST_OF_D_SOURCE] != 0,
            )  # fmt: skip
        return float(dot(d_feature, array_at(term[FEATURE], scratch, size)))
    first, last = term[FIRST], term[FIRST] + term[NUMBER] - 1
    needs_weights = term[NEEDS_WEIGHTS] != 0
    d = array_at(term[D_TOTAL], scratch, _output_size(table_s[last]))
    sums = np.empty(2 * table_s[last, OUTS], np.float64)
    gradient_sums(
        d, array_at(table_s[last, OUTPUT], scratch, d.size),
        array_at(table_s[last, STATISTICS], scratch, 2 * table_s[last, OUTS]), sums,
        _output_shape(table_s[last]),
    )  # fmt: skip
    d_multiplier = 0.0
    for s in range(last, first - 1, -1):
        stage, ins, outs = table_s[s], table_s[s, INS], table_s[s, OUTS]
        _, _, pixels = _output_shape(stage)
        coefficients = np.empty(3 * outs, scratch.dtype)
        found = norm_backward(
            sums, stage[IMAGES] * pixels, array_at(stage[STATISTICS], scratch, 2 * outs), eps_s[s],
            multiplier if s == last else 1.0, array_at(stage[SCALE], scratch, outs),
            array_at(stage[SHIFT], scratch, outs), coefficients,
            array_at(stage[D_NORM], scratch, 2 * outs),
        )  # fmt: skip
        if s == last:
            d_multiplier = found
        if term[D_SOURCE] == 0 and not needs_weights:
            break  # it is all about the multiplier
        size = _input_size(stage)
        # The two buffers in turn, since the one before is still being read.
        d_input = buffers[s % 2]
        means = folded = coefficients
        if s > first:
            means = array_at(table_s[s - 1, STATISTICS], scratch, 2 * ins)
            folded = array_at(table_s[s - 1, FOLDED], scratch, 2 * ins)
        elif term[D_SOURCE]:
            d_input = array_at(term[D_SOURCE], scratch, size)
        sums = np.empty(2 * ins, np.float64)
        stage_gradients.backward(
            d, array_at(stage[OUTPUT], scratch, _output_size(stage)), coefficients,
            array_at(stage[INPUT], scratch, size), stage[MODE], folded, means,
            array_at(stage[KERNELS], scratch, ins * stage[KERNEL] ** 2),
            array_at(stage[WEIGHTS], scratch, outs * ins), d_input, sums,
            array_at(stage[D_KERNELS], scratch, ins * stage[KERNEL] ** 2),
            array_at(stage[D_WEIGHTS], scratch, outs * ins), s > first or term[D_SOURCE] != 0,
            needs_weights, s > first or term[FIRST_OF_D_SOURCE] != 0, scratch, _sizes(stage),
        )  # fmt: skip
        d = d_input
    return d_multiplier
