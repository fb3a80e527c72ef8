"""A stage, ReLU, depthwise and pointwise convolution, from its input to its output and back.

A few rows of an image at a time go through all of it, so that what passes from one convolution to
the other stays in the cache. The statistics that the normalisation behind needs are taken on the
way. Tensors are in lanes, see `search_core.relaxation.lanes`.

Legend: g groups of as many images as there are lanes, l lanes, i channels that come in, o channels
that go out, h height, w width, k taps along an axis.
"""

from typing import Any, Final

import numpy as np

from search_core.relaxation.kernels.compiling import LANES, compiled
from search_core.relaxation.kernels.depthwise import convolve, correlate
from search_core.relaxation.kernels.pointwise import add_outer, multiply
from search_core.relaxation.kernels.vectors import (
    add,
    fma,
    load,
    rectified,
    splat,
    store,
    subtract,
    total,
    where_positive,
)
from search_core.relaxation.kernels.vectors import multiply as times

AS_IS: Final = 0
"""A stage reads its input as it is,"""
RECTIFIED: Final = 1
"""or rectified,"""
NORMALISED: Final = 2
"""or times a scale, plus a shift, rectified."""


@compiled
def num_slots(reach: int) -> int:
    """Rows that a ring has to hold for kernels that reach so far: a power of 2."""
    slots = 1
    while slots < 2 * reach + 1:
        slots *= 2
    return slots


@compiled
def _clear_margins(ring: Any, at: int, planes: int, rows: int, width: int, reach: int) -> None:
    """Zeros left and right of every row."""
    nothing = splat(ring.dtype.type(0))
    length = width + 2 * reach
    for row in range(planes * rows):
        start = at + row * length * LANES
        for pixel in range(reach):
            store(ring, start + pixel * LANES, nothing)
            store(ring, start + (reach + width + pixel) * LANES, nothing)


@compiled
def _clear(ring: Any, at: int, pixels: int) -> None:
    nothing = splat(ring.dtype.type(0))
    for pixel in range(pixels):
        store(ring, at + pixel * LANES, nothing)


@compiled
def _read(
    x: Any, x_at: int, step: int, mode: int, scale: Any, shift: Any, out: Any, out_at: int,
    count: int,
) -> None:  # fmt: skip
    """Reads a row as a stage sees it, every `step`-th pixel."""
    if mode == NORMALISED:
        scales, shifts = splat(scale), splat(shift)
        for pixel in range(count):
            value = fma(load(x, x_at + pixel * step * LANES), scales, shifts)
            store(out, out_at + pixel * LANES, rectified(value))
    elif mode == RECTIFIED:
        for pixel in range(count):
            value = load(x, x_at + pixel * step * LANES)
            store(out, out_at + pixel * LANES, rectified(value))
    else:
        for pixel in range(count):
            store(out, out_at + pixel * LANES, load(x, x_at + pixel * step * LANES))


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
def forward(
    x: Any, mode: int, folded: Any, kernels: Any, weights: Any, y: Any, statistics: Any,
    scratch: Any, sizes: tuple[int, int, int, int, int, int, int, int],
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
        sizes: Images, i, o, h, w, k, stride and dilation; with k = 0 there is no depthwise
            convolution.
    """
    images, ins, outs, height, width, k, stride, dilation = sizes
    groups = -(-images // LANES)
    reach = dilation * (k // 2)
    out_height, out_width = -(-height // stride), -(-width // stride)
    slots = num_slots(reach)
    row = (width + 2 * reach) * LANES
    plane = slots * row
    seen = ins * plane if k else 0
    sums = np.zeros(outs * 2 * LANES, y.dtype)
    pivots = np.zeros(outs, y.dtype)
    valid = np.zeros(LANES, y.dtype)
    rows = np.zeros(8, np.int64)
    if k:
        _clear_margins(scratch, 0, ins, slots, width, reach)
    for group in range(groups):
        for lane in range(LANES):
            valid[lane] = 1.0 if group * LANES + lane < images else 0.0
        mask = load(valid, 0)
        ready = -reach
        for out_row in range(out_height):
            top = out_row * stride - reach
            if k:
                while ready <= top + 2 * reach:
                    at = (ready & (slots - 1)) * row + reach * LANES
                    for c in range(ins):
                        if 0 <= ready < height:
                            _read(
                                x, ((group * ins + c) * height + ready) * width * LANES, 1, mode,
                                folded[c], folded[ins + c], scratch, c * plane + at, width,
                            )  # fmt: skip
                        else:
                            _clear(scratch, c * plane + at, width)
                    ready += 1
                for c in range(ins):
                    for tap in range(k):
                        rows[tap] = c * plane + ((top + tap * dilation) & (slots - 1)) * row
                    convolve(
                        k, scratch, rows, dilation * LANES, stride * LANES, kernels, c * k * k,
                        scratch, seen + c * out_width * LANES, out_width,
                    )  # fmt: skip
            else:
                for c in range(ins):
                    _read(
                        x, ((group * ins + c) * height + out_row * stride) * width * LANES,
                        stride, mode, folded[c], folded[ins + c], scratch,
                        seen + c * out_width * LANES, out_width,
                    )  # fmt: skip
            y_at = (group * outs * out_height + out_row) * out_width * LANES
            y_o = out_height * out_width * LANES
            multiply(
                weights, ins, 1, outs, ins, scratch, seen, out_width * LANES, y, y_at, y_o, LANES,
                out_width,
            )  # fmt: skip
            for c in range(outs):
                if group == 0 and out_row == 0:
                    # Near the mean, so that squares of what is left lose no digits.
                    nothing = splat(y.dtype.type(0))
                    for pixel in range(out_width):
                        nothing = add(nothing, load(y, y_at + c * y_o + pixel * LANES))
                    pivots[c] = total(times(nothing, mask)) / (out_width * min(images, LANES))
                _measure(y, y_at + c * y_o, out_width, pivots[c], mask, sums, c * 2 * LANES)
    count = images * out_height * out_width
    for c in range(outs):
        first, second = 0.0, 0.0
        for lane in range(LANES):
            first += sums[c * 2 * LANES + lane]
            second += sums[c * 2 * LANES + LANES + lane]
        mean = first / count
        statistics[c] = pivots[c] + mean
        statistics[outs + c] = max(second / count - mean * mean, 0.0)


@compiled
def backward(
    d: Any, y: Any, coefficients: Any, x: Any, mode: int, folded: Any, means: Any, kernels: Any,
    weights: Any, d_x: Any, d_sums: Any, d_kernels: Any, d_weights: Any, needs_input: bool,
    needs_weights: bool, scratch: Any, sizes: tuple[int, int, int, int, int, int, int, int],
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
        d_x: The gradient of what was read, before it was rectified; added to, but written in the
            mode `NORMALISED`.
        d_sums: Its sums, and those of its products with what the input is above its mean, [2, i];
            written in this mode.
        d_kernels: The kernels' gradient, [i, k, k]; written.
        d_weights: The weights' gradient, [o, i]; written.
        needs_input: Whether the gradient of the input is needed.
        needs_weights: Whether those of kernels and weights are.
        scratch: At least `scratch_size` numbers.
        sizes: Images, i, o, h, w, k, stride and dilation, as they were forward.
    """
    images, ins, outs, height, width, k, stride, dilation = sizes
    groups = -(-images // LANES)
    reach = dilation * (k // 2)
    out_height, out_width = -(-height // stride), -(-width // stride)
    slots = num_slots(reach)
    row = (width + 2 * reach) * LANES
    plane = slots * row
    # Where things are in the scratch: the gradient of what the pointwise convolution reads, spread
    # as the input is; that of a row of its output; of a row of the input; the input; and what the
    # pointwise convolution reads.
    d_row = ins * plane
    d_line = d_row + outs * out_width * LANES
    ring = d_line + width * LANES
    seen = ring + ins * plane
    of_weights = np.zeros(outs * ins * LANES if needs_weights else 0, y.dtype)
    of_kernels = np.zeros(ins * k * k * LANES if needs_weights else 0, y.dtype)
    sums = np.zeros(ins * 2 * LANES, y.dtype)
    flipped = np.zeros(ins * k * k, y.dtype)
    for c in range(ins):
        for tap in range(k * k):
            flipped[c * k * k + tap] = kernels[c * k * k + k * k - 1 - tap]
    valid = np.zeros(LANES, y.dtype)
    rows = np.zeros(8, np.int64)
    if stride > 1:
        _clear(scratch, 0, ins * slots * (width + 2 * reach))
    elif k:
        _clear_margins(scratch, 0, ins, slots, width, reach)
    if needs_weights and k:
        _clear_margins(scratch, ring, ins, slots, width, reach)
    for group in range(groups):
        for lane in range(LANES):
            valid[lane] = 1.0 if group * LANES + lane < images else 0.0
        mask = load(valid, 0)
        ready, read = -reach, -reach
        for in_row in range(height):
            while ready <= in_row + reach:
                at = (ready & (slots - 1)) * row + reach * LANES
                out_row = ready // stride
                if not (0 <= ready < height and ready % stride == 0):
                    for c in range(ins):
                        _clear(scratch, c * plane + at, width)
                    ready += 1
                    continue
                for c in range(outs):
                    place = ((group * outs + c) * out_height + out_row) * out_width * LANES
                    _through_norm(
                        d, y, place, coefficients[c], coefficients[outs + c],
                        coefficients[2 * outs + c], mask, scratch, d_row + c * out_width * LANES,
                        out_width,
                    )  # fmt: skip
                multiply(
                    weights, 1, ins, ins, outs, scratch, d_row, out_width * LANES, scratch, at,
                    plane, stride * LANES, out_width,
                )  # fmt: skip
                if needs_weights:
                    top = out_row * stride - reach
                    while k and read <= top + 2 * reach:
                        into = ring + (read & (slots - 1)) * row + reach * LANES
                        for c in range(ins):
                            if 0 <= read < height:
                                _read(
                                    x, ((group * ins + c) * height + read) * width * LANES, 1,
                                    mode, folded[c], folded[ins + c], scratch, into + c * plane,
                                    width,
                                )  # fmt: skip
                            else:
                                _clear(scratch, into + c * plane, width)
                        read += 1
                    for c in range(ins):
                        if k:
                            for tap in range(k):
                                rows[tap] = (
                                    ring + c * plane
                                    + ((top + tap * dilation) & (slots - 1)) * row
                                )  # fmt: skip
                            convolve(
                                k, scratch, rows, dilation * LANES, stride * LANES, kernels,
                                c * k * k, scratch, seen + c * out_width * LANES, out_width,
                            )  # fmt: skip
                            correlate(
                                k, scratch, c * plane + at, scratch, rows, dilation * LANES,
                                stride * LANES, of_kernels, c * k * k * LANES, out_width,
                            )  # fmt: skip
                        else:
                            _read(
                                x, ((group * ins + c) * height + ready) * width * LANES, stride,
                                mode, folded[c], folded[ins + c], scratch,
                                seen + c * out_width * LANES, out_width,
                            )  # fmt: skip
                    add_outer(
                        scratch, d_row, out_width * LANES, outs, scratch, seen, out_width * LANES,
                        ins, out_width, of_weights, 0,
                    )  # fmt: skip
                ready += 1
            if not needs_input:
                continue
            for c in range(ins):
                found = d_line
                if k:
                    for tap in range(k):
                        rows[tap] = (
                            c * plane + ((in_row - reach + tap * dilation) & (slots - 1)) * row
                        )
                    convolve(
                        k, scratch, rows, dilation * LANES, LANES, flipped, c * k * k, scratch,
                        d_line, width,
                    )  # fmt: skip
                else:
                    found = c * plane
                place = ((group * ins + c) * height + in_row) * width * LANES
                _put(
                    scratch, found, x, place, mode, folded[c], folded[ins + c], means[c], d_x,
                    sums, c * 2 * LANES, width,
                )  # fmt: skip
    if mode == NORMALISED:
        for c in range(ins):
            d_sums[c] = total(load(sums, c * 2 * LANES))
            d_sums[ins + c] = total(load(sums, c * 2 * LANES + LANES))
    if needs_weights:
        for each in range(outs * ins):
            d_weights[each] = total(load(of_weights, each * LANES))
        for each in range(ins * k * k):
            d_kernels[each] = total(load(of_kernels, each * LANES))


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
    d_x: Any, sums: Any, at: int, count: int,
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
    elif mode == RECTIFIED:
        for pixel in range(count):
            offset = pixel * LANES
            value = where_positive(load(x, x_at + offset), load(found, found_at + offset))
            store(d_x, x_at + offset, add(load(d_x, x_at + offset), value))
    else:
        for pixel in range(count):
            offset = pixel * LANES
            value = add(load(d_x, x_at + offset), load(found, found_at + offset))
            store(d_x, x_at + offset, value)


def scratch_size(ins: int, outs: int, width: int, k: int, stride: int, dilation: int) -> int:
    """How many numbers of scratch a stage needs, forward or backward.

    Args:
        ins: Channels that come in.
        outs: Channels that go out.
        width: Of the input.
        k: Taps along an axis.
        stride: Of the output.
        dilation: Pixels between two taps.
    """
    reach = dilation * (k // 2)
    ring = ins * num_slots(reach) * (width + 2 * reach)
    out_width = -(-width // stride)
    return int(LANES * (2 * ring + (outs + ins) * out_width + width))
