"""The gradients of a stage, from its output to its input.

As forward, a few rows at a time go back through both convolutions. What these read is computed
again where their weights' gradients need it.

Legend: g groups of as many images as there are lanes, l lanes, i channels that come in, o channels
that go out, h height, w width, k taps along an axis.
"""

from typing import Any

import numpy as np

from search_core.relaxation.kernels.compiling import LANES, compiled, inlined
from search_core.relaxation.kernels.depthwise import convolve, correlate
from search_core.relaxation.kernels.layout import turn
from search_core.relaxation.kernels.pointwise import multiply
from search_core.relaxation.kernels.pointwise_gradients import add_outer, add_turned, is_wide
from search_core.relaxation.kernels.rings import (
    NORMALISED,
    RECTIFIED,
    Ring,
    Sizes,
    clear_margins,
    fetch_row,
    fill,
    leave_out,
    locate,
    out_size,
    prepare,
    ring_of,
    valid_lanes,
)
from search_core.relaxation.kernels.stages import see
from search_core.relaxation.kernels.vectors import (
    add,
    fma,
    load,
    splat,
    store,
    subtract,
    total,
    where_positive,
)
from search_core.relaxation.kernels.vectors import multiply as times


@inlined
def backward(
    d: Any, y: Any, coefficients: Any, x: Any, mode: int, folded: Any, means: Any, kernels: Any,
    weights: Any, d_x: Any, d_sums: Any, d_kernels: Any, d_weights: Any, needs_input: bool,
    needs_weights: bool, is_first: bool, scratch: Any, sizes: Sizes,
) -> None:  # fmt: skip
    """Computes a stage's gradients.

    The gradient of its output is `a * d + b * y + c` with coefficients for each channel, which is
    what a normalisation makes of the gradient `d` of what it puts out.

    Args:
        d: The gradient behind the normalisation, [g, o, h / stride, w / stride, l].
        y: The output, likewise.
        coefficients: a, b and c, [3, o].
        x: The input, [g, i, h, w, l].
        mode: How it is read.
        folded: Scale and shift of the mode `NORMALISED`, [2, i].
        means: Of the input in this mode, [i].
        kernels: Of the depthwise convolution, [i, k, k]; not read if k is 0.
        weights: Of the pointwise one, [o, i].
        d_x: The gradient of what was read, before it was rectified.
        d_sums: Its sums, and those of its products with what the input is above its mean, [2, i];
            written in this mode.
        d_kernels: The kernels' gradient, [i, k, k]; written.
        d_weights: The weights' gradient, [o, i]; written.
        needs_input: Whether the gradient of the input is needed.
        needs_weights: Whether those of kernels and weights are.
        is_first: Whether `d_x` is written, and not added to; so it is in the mode `NORMALISED`.
        scratch: At least `scratch_size` numbers.
        sizes: What is computed.
    """
    ring, k, ins, outs = ring_of(sizes), sizes.k, sizes.ins, sizes.outs
    _, out_width = out_size(sizes)
    # Where things are in the scratch: first the gradient of what the pointwise convolution reads,
    # spread as the input is; then that of a row of the output; the input, and what the pointwise
    # convolution reads of it; a row of the input's gradient; and what is read, turned.
    d_row = ring.size
    inputs = d_row + outs * out_width * LANES
    seen = inputs + ring.size
    d_line = seen + ins * out_width * LANES
    turned = d_line + sizes.width * LANES
    of_weights = _vectors_of(d_weights, needs_weights, sizes)
    of_kernels = np.zeros(ins * k * k * LANES if needs_weights else 0, y.dtype)
    sums, valid = np.zeros(ins * 2 * LANES, y.dtype), np.zeros(LANES, y.dtype)
    rows, flipped = np.zeros(max(k, 1), np.int64), _flipped(kernels, ins, k)
    prepare(scratch, ring, sizes)
    clear_margins(scratch, inputs, ins, ring.slots, sizes.width, ring.reach)
    for group in range(-(-sizes.images // LANES)):
        mask = valid_lanes(sizes.images, group, valid)
        ready, read = -ring.reach, -ring.reach
        for in_row in range(sizes.height):
            while ready <= in_row + ring.reach:
                if not 0 <= ready < sizes.height or ready % sizes.stride:
                    leave_out(scratch, ready, ring, sizes)
                    ready += 1
                    continue
                _spread(
                    d, y, group, ready, coefficients, mask, weights, scratch, d_row, ring, sizes
                )
                if needs_weights:
                    while k and read <= ready + ring.reach:
                        fill(x, group, read, mode, folded, scratch, inputs, ring, sizes)
                        read += 1
                    see(
                        x, group, ready // sizes.stride, mode, folded, kernels, scratch, inputs,
                        seen, ring, rows, read, sizes,
                    )  # fmt: skip
                    _add_weights(
                        scratch, ready, d_row, inputs, seen, turned, of_kernels, of_weights,
                        d_weights, ring, rows, sizes,
                    )  # fmt: skip
                ready += 1
            if needs_input:
                _gather(
                    scratch, group, in_row, flipped, x, mode, folded, means, d_x, sums, d_line,
                    is_first, ring, rows, d, y, ready, sizes,
                )  # fmt: skip
    if mode == NORMALISED:
        _add_up(sums, d_sums, ins)
    _totals(of_weights, d_weights)
    _totals(of_kernels, d_kernels)


@compiled
def _vectors_of(d_weights: Any, needs_weights: bool, sizes: Sizes) -> Any:
    """Vectors for the weights' gradient; none where it is not needed, or is summed up itself."""
    if not needs_weights:
        return np.zeros(0, d_weights.dtype)
    if is_wide(sizes.outs, sizes.ins):
        d_weights[:] = 0.0
        return np.zeros(0, d_weights.dtype)
    return np.zeros(sizes.outs * sizes.ins * LANES, d_weights.dtype)


@compiled
def _flipped(kernels: Any, ins: int, k: int) -> Any:
    """The kernels the other way round, by which gradients go back."""
    flipped = np.zeros(ins * k * k, kernels.dtype)
    for c in range(ins):
        for tap in range(k * k):
            flipped[c * k * k + tap] = kernels[c * k * k + k * k - 1 - tap]
    return flipped


@compiled
def _spread(
    d: Any, y: Any, group: int, index: int, coefficients: Any, mask: Any, weights: Any,
    scratch: Any, d_row: int, ring: Ring, sizes: Sizes,
) -> None:  # fmt: skip
    """A row of the gradient of what the pointwise convolution reads, into the ring."""
    outs = sizes.outs
    out_height, out_width = out_size(sizes)
    for c in range(outs):
        row = (group * outs + c) * out_height + index // sizes.stride
        _through_norm(
            d, y, row * out_width * LANES, coefficients[c], coefficients[outs + c],
            coefficients[2 * outs + c], mask, scratch, d_row + c * out_width * LANES, out_width,
        )  # fmt: skip
    at = (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    multiply(
        weights, 1, sizes.ins, sizes.ins, outs, scratch, d_row, out_width * LANES, scratch, at,
        ring.plane, sizes.stride * LANES, out_width,
    )  # fmt: skip


@compiled
def _add_weights(
    scratch: Any, index: int, d_row: int, inputs: int, seen: int, turned: int, of_kernels: Any,
    of_weights: Any, d_weights: Any, ring: Ring, rows: Any, sizes: Sizes,
) -> None:  # fmt: skip
    """Adds what a row says of the gradients of kernels and weights."""
    _, out_width = out_size(sizes)
    at = (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    if sizes.k:
        for c in range(sizes.ins):
            locate(rows, inputs + c * ring.plane, index - ring.reach, ring, sizes)
            correlate(
                sizes.k, scratch, c * ring.plane + at, scratch, rows, sizes.dilation * LANES,
                sizes.stride * LANES, of_kernels, c * sizes.k * sizes.k * LANES, out_width,
            )  # fmt: skip
    line, outs, ins = out_width * LANES, sizes.outs, sizes.ins
    if is_wide(outs, ins):
        turn(scratch, seen, line, ins, out_width, scratch, turned)
        add_turned(scratch, d_row, line, outs, scratch, turned, ins, out_width, d_weights)
    else:
        add_outer(scratch, d_row, line, outs, scratch, seen, line, ins, out_width, of_weights, 0)


@compiled
def _gather(
    scratch: Any, group: int, in_row: int, flipped: Any, x: Any, mode: int, folded: Any,
    means: Any, d_x: Any, sums: Any, d_line: int, is_first: bool, ring: Ring, rows: Any, d: Any,
    y: Any, ahead: int, sizes: Sizes,
) -> None:  # fmt: skip
    """A row of the input's gradient, from the ring to where it belongs.

    Meanwhile what the next row needs is fetched, and row `ahead` of the output with its gradient.
    """
    ins, outs, k = sizes.ins, sizes.outs, sizes.k
    out_height, out_width = out_size(sizes)
    out_row = ahead // sizes.stride if ahead % sizes.stride == 0 else out_height
    for c in range(ins):
        found = c * ring.plane
        if k:
            found = d_line
            locate(rows, c * ring.plane, in_row - ring.reach, ring, sizes)
            convolve(
                k, scratch, rows, sizes.dilation * LANES, LANES, flipped, c * k * k, scratch,
                d_line, sizes.width,
            )  # fmt: skip
        plane = group * ins + c
        fetch_row(x, plane, in_row + 1, sizes.height, sizes.width)
        fetch_row(d_x, plane, in_row + 1, sizes.height, sizes.width)
        for out in range(c * outs // ins, (c + 1) * outs // ins):
            fetch_row(d, group * outs + out, out_row, out_height, out_width)
            fetch_row(y, group * outs + out, out_row, out_height, out_width)
        place = (plane * sizes.height + in_row) * sizes.width * LANES
        _put(
            scratch, found, x, place, mode, folded[c], folded[ins + c], means[c], d_x, is_first,
            sums, c * 2 * LANES, sizes.width,
        )  # fmt: skip


@compiled
def _add_up(sums: Any, d_sums: Any, ins: int) -> None:
    for c in range(ins):
        d_sums[c] = total(load(sums, c * 2 * LANES))
        d_sums[ins + c] = total(load(sums, c * 2 * LANES + LANES))


@compiled
def _totals(vectors: Any, found: Any) -> None:
    for each in range(vectors.size // LANES):
        found[each] = total(load(vectors, each * LANES))


@compiled
def _through_norm(
    d: Any, y: Any, at: int, a: Any, b: Any, c: Any, mask: Any, out: Any, out_at: int, count: int
) -> None:
    """A row of the gradient of what a pointwise convolution puts out; 0 where no image is."""
    slopes, of_outputs, shifts = splat(a), splat(b), splat(c)
    for pixel in range(count):
        offset = at + pixel * LANES
        value = fma(load(y, offset), of_outputs, shifts)
        value = fma(load(d, offset), slopes, value)
        store(out, out_at + pixel * LANES, times(value, mask))


@compiled
def _put(
    found: Any, found_at: int, x: Any, x_at: int, mode: int, scale: Any, shift: Any, mean: Any,
    d_x: Any, is_first: bool, sums: Any, at: int, count: int,
) -> None:  # fmt: skip
    """Puts a row of the gradient of what a stage read where it belongs."""
    if mode == NORMALISED:
        scales, shifts, means = splat(scale), splat(shift), splat(mean)
        first, second = load(sums, at), load(sums, at + LANES)
        for pixel in range(count):
            offset = pixel * LANES
            value = load(x, x_at + offset)
            d_value = where_positive(fma(value, scales, shifts), load(found, found_at + offset))
            store(d_x, x_at + offset, d_value)
            first = add(first, d_value)
            second = fma(d_value, subtract(value, means), second)
        store(sums, at, first)
        store(sums, at + LANES, second)
        return
    for pixel in range(count):
        offset = pixel * LANES
        d_value = load(found, found_at + offset)
        if mode == RECTIFIED:
            d_value = where_positive(load(x, x_at + offset), d_value)
        if not is_first:
            d_value = add(load(d_x, x_at + offset), d_value)
        store(d_x, x_at + offset, d_value)
