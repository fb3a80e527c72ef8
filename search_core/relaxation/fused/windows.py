"""What threads of a depthwise convolution keep of rows that they have gone by, in registers.

A window is a tuple of rows, each with a value for every column of the kernel.
"""

import triton
import triton.language as tl


@triton.jit
def read(places, h, height, width, kernel: tl.constexpr, acc: tl.constexpr):
    """A row at each of the kernel's columns; zeros above and below the image."""
    is_row = (h >= 0) & (h < height)
    values = ()
    for j in tl.static_range(kernel):
        value = tl.load(places[j] + h * width, mask=is_row, other=0.0)
        values = values + (value.to(acc),)
    return values


@triton.jit
def last(values, skipped: tl.constexpr, count: tl.constexpr):
    """What is left of a window that moves on."""
    left = ()
    for index in tl.static_range(count):
        left = left + (values[skipped + index],)
    return left


@triton.jit
def slide(
    source, weight, target, inside, column, phase, first, rows, in_h, in_w, out_h, out_w, is_known,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr, phases: tl.constexpr,
    flip: tl.constexpr, adds: tl.constexpr, unrolled: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Goes down a strip of a channel."""
    reach: tl.constexpr = kernel // 2 * dilation
    advance: tl.constexpr = stride * phases // dilation
    kept: tl.constexpr = kernel - advance if kernel > advance else 0
    places = ()
    taps = ()
    for i in tl.static_range(kernel):
        for j in tl.static_range(kernel):
            w = column * stride + (j * dilation - reach)
            index = kernel * kernel - 1 - i * kernel - j if flip else i * kernel + j
            tap = tl.load(weight + index).to(acc)
            taps = taps + (tl.where((w >= 0) & (w < in_w), tap, 0.0),)
            if i == 0:
                places = places + (source + tl.minimum(tl.maximum(w, 0), in_w - 1),)
    values = ()
    for u in tl.static_range(kept):
        h = (first * phases + phase) * stride + (u * dilation - reach)
        values = values + read(places, h, in_h, in_w, kernel, acc)
    for start in range(first, first + rows, unrolled):
        # All is read before anything is written: no compiler knows that these are different places.
        totals = ()
        for row in tl.static_range(unrolled):
            top = (start + row) * phases + phase
            for u in tl.static_range(advance):
                h = top * stride + ((kept + u) * dilation - reach)
                values = values + read(places, h, in_h, in_w, kernel, acc)
            if adds:
                mask = inside & (top < out_h) & (phase * 0 + is_known != 0)
                totals = totals + (tl.load(target + top * out_w, mask=mask, other=0.0).to(acc),)
            else:
                totals = totals + (tl.zeros(column.shape, dtype=acc),)
        for row in tl.static_range(unrolled):
            top = (start + row) * phases + phase
            total = totals[row]
            for i in tl.static_range(kernel):
                for j in tl.static_range(kernel):
                    total += values[(row * advance + i) * kernel + j] * taps[i * kernel + j]
            mask = inside & (top < out_h)
            tl.store(target + top * out_w, total.to(target.dtype.element_ty), mask=mask)
        values = last(values, unrolled * advance * kernel, kept * kernel)
