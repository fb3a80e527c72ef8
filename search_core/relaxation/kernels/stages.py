"""A stage, ReLU, depthwise and pointwise convolution, from its input to its output.

A few rows of an image at a time go through all of it, so that what passes from one convolution to
the other stays in the cache. The statistics that the normalisation behind needs are taken on the
way. Tensors are in lanes, see `search_core.relaxation.lanes`; `stage_gradients` goes back.

Legend: g groups of as many images as there are lanes, l lanes, i channels that come in, o channels
that go out, h height, w width, k taps along an axis.
"""

from typing import Any

import numpy as np

from search_core.relaxation.kernels.compiling import LANES, compiled, inlined
from search_core.relaxation.kernels.depthwise import convolve
from search_core.relaxation.kernels.pointwise import multiply
from search_core.relaxation.kernels.rings import (
    Ring,
    Sizes,
    clear_margins,
    fetch_row,
    fill,
    locate,
    out_size,
    read_row,
    ring_of,
    valid_lanes,
)
from search_core.relaxation.kernels.vectors import add, fma, load, splat, store, subtract, total
from search_core.relaxation.kernels.vectors import multiply as times


@inlined
def forward(
    x: Any, mode: int, folded: Any, kernels: Any, weights: Any, y: Any, statistics: Any,
    scratch: Any, sizes: Sizes,
) -> None:  # fmt: skip
    """Computes a stage, and measures what comes out.

    Args:
        x: The input, [g, i, h, w, l].
        mode: How it is read.
        folded: Scale and shift of the mode `NORMALISED`, [2, i].
        kernels: Of the depthwise convolution, [i, k, k]; not read if k is 0.
        weights: Of the pointwise one, [o, i].
        y: The output, [g, o, h / stride, w / stride, l]; written.
        statistics: Mean and biased variance of the images' values, [2, o]; written.
        scratch: At least `scratch_size` numbers.
        sizes: What is computed.
    """
    ring = ring_of(sizes)
    out_height, out_width = out_size(sizes)
    # Behind the ring, what the pointwise convolution reads.
    seen, outs = ring.size, sizes.outs
    sums = np.zeros(outs * 2 * LANES, y.dtype)
    pivots, valid = np.zeros(outs, y.dtype), np.zeros(LANES, y.dtype)
    rows = np.zeros(max(sizes.k, 1), np.int64)
    clear_margins(scratch, 0, sizes.ins, ring.slots, sizes.width, ring.reach)
    y_o = out_height * out_width * LANES
    for group in range(-(-sizes.images // LANES)):
        mask = valid_lanes(sizes.images, group, valid)
        ready = -ring.reach
        for out_row in range(out_height):
            while sizes.k and ready <= out_row * sizes.stride + ring.reach:
                fill(x, group, ready, mode, folded, scratch, 0, ring, sizes)
                ready += 1
            see(
                x, group, out_row, mode, folded, kernels, scratch, 0, seen, ring, rows, ready, sizes
            )
            y_at = (group * outs * out_height + out_row) * out_width * LANES
            multiply(
                weights, sizes.ins, 1, outs, sizes.ins, scratch, seen, out_width * LANES, y, y_at,
                y_o, LANES, out_width,
            )  # fmt: skip
            for c in range(outs):
                if group == 0 and out_row == 0:
                    pivots[c] = _start(y, y_at + c * y_o, out_width, mask, sizes.images)
                _measure(y, y_at + c * y_o, out_width, pivots[c], mask, sums, c * 2 * LANES)
    _conclude(sums, pivots, sizes.images * out_height * out_width, statistics)


@compiled
def see(
    x: Any, group: int, out_row: int, mode: int, folded: Any, kernels: Any, scratch: Any, at: int,
    seen: int, ring: Ring, rows: Any, ahead: int, sizes: Sizes,
) -> None:  # fmt: skip
    """Computes what the pointwise convolution reads for a row of the output.

    Meanwhile `ahead`, a row of the input, is fetched.
    """
    _, out_width = out_size(sizes)
    for c in range(sizes.ins):
        place = seen + c * out_width * LANES
        if sizes.k:
            locate(rows, at + c * ring.plane, out_row * sizes.stride - ring.reach, ring, sizes)
            convolve(
                sizes.k, scratch, rows, sizes.dilation * LANES, sizes.stride * LANES, kernels,
                c * sizes.k * sizes.k, scratch, place, out_width,
            )  # fmt: skip
            fetch_row(x, group * sizes.ins + c, ahead, sizes.height, sizes.width)
        else:
            x_row = (group * sizes.ins + c) * sizes.height + out_row * sizes.stride
            read_row(
                x, x_row * sizes.width * LANES, sizes.stride, mode, folded[c],
                folded[sizes.ins + c], scratch, place, out_width,
            )  # fmt: skip
            following = (out_row + 1) * sizes.stride
            fetch_row(x, group * sizes.ins + c, following, sizes.height, sizes.width)


@compiled
def _measure(y: Any, y_at: int, count: int, pivot: Any, mask: Any, sums: Any, at: int) -> None:
    """Adds the values of a row, less the pivot, and their squares."""
    pivots = splat(pivot)
    first, second = load(sums, at), load(sums, at + LANES)
    for pixel in range(count):
        value = times(subtract(load(y, y_at + pixel * LANES), pivots), mask)
        first = add(first, value)
        second = fma(value, value, second)
    store(sums, at, first)
    store(sums, at + LANES, second)


@compiled
def _start(y: Any, at: int, count: int, mask: Any, images: int) -> Any:
    """The mean of a row: near that of all, so that squares of what is left lose no digits."""
    value = splat(y.dtype.type(0))
    for pixel in range(count):
        value = add(value, load(y, at + pixel * LANES))
    return total(times(value, mask)) / (count * min(images, LANES))


@compiled
def _conclude(sums: Any, pivots: Any, count: int, statistics: Any) -> None:
    """Mean and biased variance from sums of values, less their pivots, and of squares."""
    outs = pivots.size
    for c in range(outs):
        first, second = 0.0, 0.0
        for lane in range(LANES):
            first += sums[c * 2 * LANES + lane]
            second += sums[c * 2 * LANES + LANES + lane]
        mean = first / count
        statistics[c] = pivots[c] + mean
        statistics[outs + c] = max(second / count - mean * mean, 0.0)
