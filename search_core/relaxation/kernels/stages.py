"""A stage, ReLU, depthwise and pointwise convolution, from its input to its output and back.

A few rows of an image at a time go through all of it, so that what passes from one convolution to
the other stays in the cache. The statistics that the normalisation behind needs are taken on the
way. Tensors are in lanes, see `search_core.relaxation.lanes`.

Legend: g groups of as many images as there are lanes, l lanes, i channels that come in, o channels
that go out, h height, w width, k taps along an axis.
"""

from typing import Any, Final, NamedTuple

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


class Sizes(NamedTuple):
    """What a stage computes.

    Attributes:
        images: Images.
        ins: Channels that come in.
        outs: Channels that go out.
        height: Of the input.
        width: Of the input.
        k: Taps along an axis; with 0 there is no depthwise convolution.
        stride: Of the output.
        dilation: Pixels between two taps.
    """

    images: int
    ins: int
    outs: int
    height: int
    width: int
    k: int
    stride: int
    dilation: int


class _Ring(NamedTuple):
    """The rows that a kernel reaches, of all channels, with zeros around them.

    Attributes:
        reach: Pixels that a kernel reaches beyond its middle.
        slots: Rows that there is room for, a power of 2; row r is in slot r modulo slots.
        row: From a row to the next.
        plane: From a channel to the next.
        size: Of all channels.
    """

    reach: int
    slots: int
    row: int
    plane: int
    size: int


@compiled
def _ring(sizes: Sizes) -> _Ring:
    reach = sizes.dilation * (sizes.k // 2)
    slots = 1
    while slots < 2 * reach + 1:
        slots *= 2
    row = (sizes.width + 2 * reach) * LANES
    return _Ring(reach, slots, row, slots * row, sizes.ins * slots * row)


@compiled
def _out_size(sizes: Sizes) -> tuple[int, int]:
    return -(-sizes.height // sizes.stride), -(-sizes.width // sizes.stride)


@compiled
def scratch_size(sizes: Sizes) -> int:
    """How many numbers of scratch a stage needs, forward or backward.

    Args:
        sizes: What it computes.
    """
    _, out_width = _out_size(sizes)
    line = (sizes.outs + sizes.ins) * out_width + sizes.width
    return int(2 * _ring(sizes).size + line * LANES)


@compiled
def _mask(images: int, group: int, valid: Any) -> Any:
    """A vector of ones where a group has an image, and zeros elsewhere."""
    for lane in range(LANES):
        valid[lane] = 1.0 if group * LANES + lane < images else 0.0
    return load(valid, 0)


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
def _fill(
    x: Any, group: int, index: int, mode: int, folded: Any, scratch: Any, at: int, ring: _Ring,
    sizes: Sizes,
) -> None:  # fmt: skip
    """Reads a row of all channels into a ring."""
    at += (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    for c in range(sizes.ins):
        if 0 <= index < sizes.height:
            x_at = ((group * sizes.ins + c) * sizes.height + index) * sizes.width * LANES
            _read(
                x, x_at, 1, mode, folded[c], folded[sizes.ins + c], scratch, at + c * ring.plane,
                sizes.width,
            )  # fmt: skip
        else:
            _clear(scratch, at + c * ring.plane, sizes.width)


@compiled
def _locate(rows: Any, at: int, top: int, ring: _Ring, sizes: Sizes) -> None:
    """Where the rows that a kernel sees begin in a ring."""
    for tap in range(sizes.k):
        rows[tap] = at + ((top + tap * sizes.dilation) & (ring.slots - 1)) * ring.row


@compiled
def _see(
    x: Any, group: int, out_row: int, mode: int, folded: Any, kernels: Any, scratch: Any, at: int,
    seen: int, ring: _Ring, rows: Any, sizes: Sizes,
) -> None:  # fmt: skip
    """Computes what the pointwise convolution reads for a row of the output."""
    _, out_width = _out_size(sizes)
    for c in range(sizes.ins):
        place = seen + c * out_width * LANES
        if sizes.k:
            _locate(rows, at + c * ring.plane, out_row * sizes.stride - ring.reach, ring, sizes)
            convolve(
                sizes.k, scratch, rows, sizes.dilation * LANES, sizes.stride * LANES, kernels,
                c * sizes.k * sizes.k, scratch, place, out_width,
            )  # fmt: skip
        else:
            x_row = (group * sizes.ins + c) * sizes.height + out_row * sizes.stride
            _read(
                x, x_row * sizes.width * LANES, sizes.stride, mode, folded[c],
                folded[sizes.ins + c], scratch, place, out_width,
            )  # fmt: skip


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


@compiled
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
    ring = _ring(sizes)
    out_height, out_width = _out_size(sizes)
    # Behind the ring, what the pointwise convolution reads.
    seen, outs = ring.size, sizes.outs
    sums = np.zeros(outs * 2 * LANES, y.dtype)
    pivots, valid = np.zeros(outs, y.dtype), np.zeros(LANES, y.dtype)
    rows = np.zeros(max(sizes.k, 1), np.int64)
    _clear_margins(scratch, 0, sizes.ins, ring.slots, sizes.width, ring.reach)
    y_o = out_height * out_width * LANES
    for group in range(-(-sizes.images // LANES)):
        mask = _mask(sizes.images, group, valid)
        ready = -ring.reach
        for out_row in range(out_height):
            while sizes.k and ready <= out_row * sizes.stride + ring.reach:
                _fill(x, group, ready, mode, folded, scratch, 0, ring, sizes)
                ready += 1
            _see(x, group, out_row, mode, folded, kernels, scratch, 0, seen, ring, rows, sizes)
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
def backward(
    d: Any, y: Any, coefficients: Any, x: Any, mode: int, folded: Any, means: Any, kernels: Any,
    weights: Any, d_x: Any, d_sums: Any, d_kernels: Any, d_weights: Any, needs_input: bool,
    needs_weights: bool, scratch: Any, sizes: Sizes,
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
        sizes: What is computed.
    """
    ring, k, ins, outs = _ring(sizes), sizes.k, sizes.ins, sizes.outs
    _, out_width = _out_size(sizes)
    # Where things are in the scratch: first the gradient of what the pointwise convolution reads,
    # spread as the input is; then that of a row of the output; the input, and what the pointwise
    # convolution reads of it; and a row of the input's gradient.
    d_row = ring.size
    inputs = d_row + outs * out_width * LANES
    seen = inputs + ring.size
    d_line = seen + ins * out_width * LANES
    of_weights = np.zeros(outs * ins * LANES if needs_weights else 0, y.dtype)
    of_kernels = np.zeros(ins * k * k * LANES if needs_weights else 0, y.dtype)
    sums, valid = np.zeros(ins * 2 * LANES, y.dtype), np.zeros(LANES, y.dtype)
    rows, flipped = np.zeros(max(k, 1), np.int64), _flipped(kernels, ins, k)
    _prepare(scratch, ring, sizes)
    _clear_margins(scratch, inputs, ins, ring.slots, sizes.width, ring.reach)
    for group in range(-(-sizes.images // LANES)):
        mask = _mask(sizes.images, group, valid)
        ready, read = -ring.reach, -ring.reach
        for in_row in range(sizes.height):
            while ready <= in_row + ring.reach:
                if not 0 <= ready < sizes.height or ready % sizes.stride:
                    _leave_out(scratch, ready, ring, sizes)
                    ready += 1
                    continue
                _spread(
                    d, y, group, ready, coefficients, mask, weights, scratch, d_row, ring, sizes
                )
                if needs_weights:
                    while k and read <= ready + ring.reach:
                        _fill(x, group, read, mode, folded, scratch, inputs, ring, sizes)
                        read += 1
                    _see(
                        x, group, ready // sizes.stride, mode, folded, kernels, scratch, inputs,
                        seen, ring, rows, sizes,
                    )  # fmt: skip
                    _add_weights(
                        scratch, ready, d_row, inputs, seen, of_kernels, of_weights, ring, rows,
                        sizes,
                    )  # fmt: skip
                ready += 1
            if needs_input:
                _gather(
                    scratch, group, in_row, flipped, x, mode, folded, means, d_x, sums, d_line,
                    ring, rows, sizes,
                )  # fmt: skip
    if mode == NORMALISED:
        _add_up(sums, d_sums, ins)
    if needs_weights:
        _totals(of_weights, d_weights)
        _totals(of_kernels, d_kernels)


@compiled
def _prepare(scratch: Any, ring: _Ring, sizes: Sizes) -> None:
    """Zeros wherever no gradient will be put: around the rows, and between spread pixels."""
    if sizes.stride > 1:
        _clear(scratch, 0, ring.size // LANES)
    else:
        _clear_margins(scratch, 0, sizes.ins, ring.slots, sizes.width, ring.reach)


@compiled
def _leave_out(scratch: Any, index: int, ring: _Ring, sizes: Sizes) -> None:
    """Zeros in place of a row that no gradient comes from."""
    at = (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    for c in range(sizes.ins):
        _clear(scratch, c * ring.plane + at, sizes.width)


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
    scratch: Any, d_row: int, ring: _Ring, sizes: Sizes,
) -> None:  # fmt: skip
    """A row of the gradient of what the pointwise convolution reads, into the ring."""
    outs = sizes.outs
    out_height, out_width = _out_size(sizes)
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
    scratch: Any, index: int, d_row: int, inputs: int, seen: int, of_kernels: Any,
    of_weights: Any, ring: _Ring, rows: Any, sizes: Sizes,
) -> None:  # fmt: skip
    """Adds what a row says of the gradients of kernels and weights."""
    _, out_width = _out_size(sizes)
    at = (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    if sizes.k:
        for c in range(sizes.ins):
            _locate(rows, inputs + c * ring.plane, index - ring.reach, ring, sizes)
            correlate(
                sizes.k, scratch, c * ring.plane + at, scratch, rows, sizes.dilation * LANES,
                sizes.stride * LANES, of_kernels, c * sizes.k * sizes.k * LANES, out_width,
            )  # fmt: skip
    line = out_width * LANES
    add_outer(
        scratch, d_row, line, sizes.outs, scratch, seen, line, sizes.ins, out_width, of_weights, 0
    )


@compiled
def _gather(
    scratch: Any, group: int, in_row: int, flipped: Any, x: Any, mode: int, folded: Any,
    means: Any, d_x: Any, sums: Any, d_line: int, ring: _Ring, rows: Any, sizes: Sizes,
) -> None:  # fmt: skip
    """A row of the input's gradient, from the ring to where it belongs."""
    ins, k = sizes.ins, sizes.k
    for c in range(ins):
        found = c * ring.plane
        if k:
            found = d_line
            _locate(rows, c * ring.plane, in_row - ring.reach, ring, sizes)
            convolve(
                k, scratch, rows, sizes.dilation * LANES, LANES, flipped, c * k * k, scratch,
                d_line, sizes.width,
            )  # fmt: skip
        place = ((group * ins + c) * sizes.height + in_row) * sizes.width * LANES
        _put(
            scratch, found, x, place, mode, folded[c], folded[ins + c], means[c], d_x, sums,
            c * 2 * LANES, sizes.width,
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
