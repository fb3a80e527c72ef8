"""Pools and normalisations without weights, and their gradients, in lanes.

Legend: g groups of images, c channels, h height, w width, l lanes, k pixels of a window's side.
"""

from typing import Any, Final

import numpy as np

from search_core.relaxation.kernels.compiling import LANES, compiled, inlined
from search_core.relaxation.kernels.vectors import (
    add,
    fma,
    load,
    multiply,
    splat,
    store,
    subtract,
    total,
    where_equal,
    where_more,
)

MAXIMUM: Final = 0
"""A pool puts out a window's largest value,"""
AVERAGE: Final = 1
"""its average, margins counted as zeros,"""
INSIDE_AVERAGE: Final = 2
"""or the average of what lies in the image."""


@compiled
def _seen(out: int, stride: int, k: int, size: int) -> tuple[int, int, int]:
    """Where a window begins, and its first pixel in the image and the one behind its last."""
    first = out * stride - k // 2
    return first, max(first, 0), min(first + k, size)


@compiled
def _seeing(pixel: int, stride: int, k: int, out_size: int) -> tuple[int, int]:
    """The first window that a pixel is in, and the one behind the last."""
    return max(-(-(pixel - k // 2) // stride), 0), min((pixel + k // 2) // stride + 1, out_size)


@compiled
def _largest(
    x: Any, at: int, apart: int, window: tuple[int, int, int], number: Any
) -> tuple[Any, Any]:
    """The largest of the values along one side of a window, and which of them it is first.

    Args:
        x: Where the values are.
        at: Where that of pixel 0 is.
        apart: From a pixel's value to the next one's.
        window: As `_seen` says.
        number: The type of numbers. They are exact: a window has few pixels.
    """
    first, left, right = window
    best, place = load(x, at + left * apart), splat(number(left - first))
    for pixel in range(left + 1, right):
        value = load(x, at + pixel * apart)
        place = where_more(value, best, splat(number(pixel - first)), place)
        best = where_more(value, best, value, best)
    return best, place


@compiled
def _sum(x: Any, at: int, apart: int, first: int, last: int, number: Any) -> Any:
    """The sum of the values of some pixels; see `_largest`."""
    value = splat(number(0))
    for pixel in range(first, last):
        value = add(value, load(x, at + pixel * apart))
    return value


@compiled
def _share(kind: int, k: int, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> float:
    """What a pixel of a window counts in its average."""
    if kind == AVERAGE:
        return 1.0 / (k * k)
    return 1.0 / ((rows[2] - rows[1]) * (columns[2] - columns[1]))


@inlined
def pool(
    x: Any, y: Any, kind: int, k: int, stride: int, sizes: tuple[int, int, int, int],
    first: int, last: int,
) -> None:  # fmt: skip
    """Pools images with a margin of k // 2: along the rows, then along the columns.

    Args:
        x: [g, c, h, w, l].
        y: [g, c, h / stride, w / stride, l]; written.
        kind: What of a window is put out.
        k: Its side in pixels; odd.
        stride: From a window to the next.
        sizes: g, c, h and w.
        first: The first channel to compute.
        last: Behind the last.
    """
    groups, channels, height, width = sizes
    out_height, out_width = -(-height // stride), -(-width // stride)
    number, line = x.dtype.type, out_width * LANES
    across = np.empty(height * line, x.dtype)
    for plane in range(groups * (last - first)):
        plane = plane // (last - first) * channels + first + plane % (last - first)
        x_at, y_at = plane * height * width * LANES, plane * out_height * line
        for row in range(height):
            for out in range(out_width):
                columns = _seen(out, stride, k, width)
                at = x_at + row * width * LANES
                if kind == MAXIMUM:
                    value, _ = _largest(x, at, LANES, columns, number)
                else:
                    value = _sum(x, at, LANES, columns[1], columns[2], number)
                store(across, row * line + out * LANES, value)
        for out_row in range(out_height):
            rows = _seen(out_row, stride, k, height)
            for out in range(out_width):
                if kind == MAXIMUM:
                    value, _ = _largest(across, out * LANES, line, rows, number)
                else:
                    value = _sum(across, out * LANES, line, rows[1], rows[2], number)
                    columns = _seen(out, stride, k, width)
                    value = multiply(value, splat(number(_share(kind, k, rows, columns))))
                store(y, y_at + out_row * line + out * LANES, value)


@inlined
def pool_backward(
    d: Any, x: Any, d_x: Any, kind: int, k: int, stride: int, sizes: tuple[int, int, int, int],
    first: int, last: int,
) -> None:  # fmt: skip
    """Computes a pool's gradient; the first largest value of a window gets all of it.

    Args:
        d: The gradient of what is put out, [g, c, h / stride, w / stride, l].
        x: What was pooled, [g, c, h, w, l].
        d_x: Its gradient, likewise; written.
        kind: What of a window is put out.
        k: Its side in pixels; odd.
        stride: From a window to the next.
        sizes: g, c, h and w.
        first: The first channel to compute.
        last: Behind the last.
    """
    groups, channels, height, width = sizes
    out_height, out_width = -(-height // stride), -(-width // stride)
    line = out_width * LANES
    # Of a plane: the largest of each row of a window, which it is of the row, and which of these
    # is the largest of the window; or what each pixel of a window gets.
    across, places = np.empty(height * line, x.dtype), np.empty(height * line, x.dtype)
    chosen = np.empty(out_height * line, x.dtype)
    down = np.empty(line, x.dtype)
    for plane in range(groups * (last - first)):
        plane = plane // (last - first) * channels + first + plane % (last - first)
        x_at, d_at = plane * height * width * LANES, plane * out_height * line
        if kind == MAXIMUM:
            _find_largest(x, x_at, k, stride, (height, width), across, places, chosen)
        else:
            _divide(d, d_at, kind, k, stride, (height, width), chosen)
        for row in range(height):
            windows = _seeing(row, stride, k, out_height)
            if kind == MAXIMUM:
                _to_row(d, d_at, chosen, row, windows, k, stride, down)
            else:
                for offset in range(0, line, LANES):
                    value = _sum(chosen, offset, line, windows[0], windows[1], x.dtype.type)
                    store(down, offset, value)
            at = x_at + row * width * LANES
            for column in range(width):
                begin, end = _seeing(column, stride, k, out_width)
                value = splat(x.dtype.type(0))
                for out in range(begin, end):
                    found = load(down, out * LANES)
                    if kind == MAXIMUM:
                        here = splat(x.dtype.type(column - out * stride + k // 2))
                        place = load(places, row * line + out * LANES)
                        found = where_equal(place, here, found)
                    value = add(value, found)
                store(d_x, at + column * LANES, value)


@compiled
def _find_largest(
    x: Any, x_at: int, k: int, stride: int, sizes: tuple[int, int], across: Any, places: Any,
    chosen: Any,
) -> None:  # fmt: skip
    """Where the largest value of each window is: the row, and in it the column."""
    height, width = sizes
    out_height, out_width = -(-height // stride), -(-width // stride)
    number, line = x.dtype.type, out_width * LANES
    for row in range(height):
        for out in range(out_width):
            columns = _seen(out, stride, k, width)
            best, place = _largest(x, x_at + row * width * LANES, LANES, columns, number)
            store(across, row * line + out * LANES, best)
            store(places, row * line + out * LANES, place)
    for out_row in range(out_height):
        rows = _seen(out_row, stride, k, height)
        for offset in range(0, line, LANES):
            _, place = _largest(across, offset, line, rows, number)
            store(chosen, out_row * line + offset, place)


@compiled
def _to_row(
    d: Any, d_at: int, chosen: Any, row: int, windows: tuple[int, int], k: int, stride: int,
    down: Any,
) -> None:  # fmt: skip
    """What the windows above each other that see a row give to it."""
    for offset in range(0, down.size, LANES):
        value = splat(d.dtype.type(0))
        for out_row in range(windows[0], windows[1]):
            here = splat(d.dtype.type(row - out_row * stride + k // 2))
            at = out_row * down.size + offset
            value = add(value, where_equal(load(chosen, at), here, load(d, d_at + at)))
        store(down, offset, value)


@compiled
def _divide(
    d: Any, d_at: int, kind: int, k: int, stride: int, sizes: tuple[int, int], shares: Any
) -> None:
    """What each pixel of a window gets of the gradient of its average."""
    height, width = sizes
    out_height, out_width = -(-height // stride), -(-width // stride)
    for out_row in range(out_height):
        rows = _seen(out_row, stride, k, height)
        for out in range(out_width):
            share = _share(kind, k, rows, _seen(out, stride, k, width))
            at = (out_row * out_width + out) * LANES
            store(shares, at, multiply(load(d, d_at + at), splat(d.dtype.type(share))))


@inlined
def normalise(
    x: Any, y: Any, statistics: Any, eps: float, images: int, sizes: tuple[int, int, int],
    first: int, last: int,
) -> None:  # fmt: skip
    """Brings every channel to mean 0 and variance 1; lanes without an image become 0.

    Args:
        x: [g, c, m, l] for m pixels.
        y: Likewise; written.
        statistics: Mean and biased variance, [2, c]; written.
        eps: Added to the variance.
        images: How many there are.
        sizes: g, c and m.
        first: The first channel to compute.
        last: Behind the last.
    """
    groups, channels, pixels = sizes
    valid = np.zeros(groups * LANES, x.dtype)
    valid[:images] = 1.0
    for c in range(first, last):
        of_values, of_squares, pivot = 0.0, 0.0, x.dtype.type(0)
        for group in range(groups):
            mask = load(valid, group * LANES)
            at = (group * channels + c) * pixels * LANES
            if group == 0:
                # Near the mean, so that squares of what is left lose no digits.
                pivot = total(multiply(load(x, at), mask)) / min(images, LANES)
            values = squares = splat(x.dtype.type(0))
            pivots = splat(x.dtype.type(pivot))
            for offset in range(at, at + pixels * LANES, LANES):
                value = multiply(subtract(load(x, offset), pivots), mask)
                values = add(values, value)
                squares = fma(value, value, squares)
            of_values += total(values)
            of_squares += total(squares)
        mean = of_values / (images * pixels)
        variance = max(of_squares / (images * pixels) - mean * mean, 0.0)
        statistics[c] = pivot + mean
        statistics[channels + c] = variance
        inverse = 1.0 / np.sqrt(variance + eps)
        scale, shift = splat(x.dtype.type(inverse)), splat(x.dtype.type(-statistics[c] * inverse))
        for group in range(groups):
            mask = load(valid, group * LANES)
            at = (group * channels + c) * pixels * LANES
            for offset in range(at, at + pixels * LANES, LANES):
                store(y, offset, multiply(fma(load(x, offset), scale, shift), mask))


@inlined
def normalise_backward(
    d: Any, y: Any, d_x: Any, statistics: Any, eps: float, images: int,
    sizes: tuple[int, int, int], first: int, last: int,
) -> None:  # fmt: skip
    """Computes the gradient of a normalisation.

    Args:
        d: The gradient of what it puts out, [g, c, m, l] for m pixels.
        y: What it put out.
        d_x: The gradient of its input; written.
        statistics: Mean and biased variance, [2, c].
        eps: Added to the variance.
        images: How many there are.
        sizes: g, c and m.
        first: The first channel to compute.
        last: Behind the last.
    """
    groups, channels, pixels = sizes
    count = images * pixels
    valid = np.zeros(groups * LANES, d.dtype)
    valid[:images] = 1.0
    for c in range(first, last):
        of_d, of_products = 0.0, 0.0
        for group in range(groups):
            at = (group * channels + c) * pixels * LANES
            one = two = splat(d.dtype.type(0))
            for offset in range(at, at + pixels * LANES, LANES):
                value = load(d, offset)
                one = add(one, value)
                two = fma(value, load(y, offset), two)
            of_d += total(one)
            of_products += total(two)
        inverse = 1.0 / np.sqrt(statistics[channels + c] + eps)
        slope = splat(d.dtype.type(inverse))
        shift = splat(d.dtype.type(-inverse * of_d / count))
        of_output = splat(d.dtype.type(-inverse * of_products / count))
        for group in range(groups):
            mask = load(valid, group * LANES)
            at = (group * channels + c) * pixels * LANES
            for offset in range(at, at + pixels * LANES, LANES):
                value = fma(load(y, offset), of_output, shift)
                store(d_x, offset, multiply(fma(load(d, offset), slope, value), mask))
