"""Pools and normalisations without weights, and their gradients, in lanes.

Legend: g groups of images, c channels, h height, w width, l lanes, k pixels of a window's side.
"""

from typing import Any, Final

import numpy as np

from search_core.relaxation.kernels.compiling import LANES, compiled
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
def _bounds(out: int, stride: int, k: int, size: int) -> tuple[int, int]:
    """The first pixel of a window in the image, and the one behind its last."""
    first = out * stride - k // 2
    return max(first, 0), min(first + k, size)


@compiled
def _largest(x: Any, at: int, width: int, window: tuple[int, int, int, int], k: int) -> Any:
    """A window's largest values, and which pixels of it they are first at."""
    top, bottom, left, right = window
    best, place = splat(x.dtype.type(-np.inf)), splat(x.dtype.type(0))
    for row in range(top, bottom):
        for column in range(left, right):
            seen = load(x, at + (row * width + column) * LANES)
            # Exact: a window has far fewer pixels than a number has digits.
            here = splat(x.dtype.type((row - top) * k + column - left))
            place = where_more(seen, best, here, place)
            best = where_more(seen, best, seen, best)
    return best, place


@compiled
def _average(x: Any, at: int, width: int, window: tuple[int, int, int, int], share: Any) -> Any:
    """The sum of a window's values, each of which counts as a share."""
    top, bottom, left, right = window
    value = splat(x.dtype.type(0))
    for row in range(top, bottom):
        for column in range(left, right):
            value = add(value, load(x, at + (row * width + column) * LANES))
    return multiply(value, splat(share))


@compiled
def _share(kind: int, k: int, window: tuple[int, int, int, int]) -> float:
    """What a pixel of a window counts in its average."""
    top, bottom, left, right = window
    return 1.0 / (k * k if kind == AVERAGE else (bottom - top) * (right - left))


@compiled
def _window(
    row: int, column: int, stride: int, k: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """The first row of a window in the image, the one behind its last; columns likewise."""
    top, bottom = _bounds(row, stride, k, height)
    left, right = _bounds(column, stride, k, width)
    return top, bottom, left, right


@compiled
def pool(
    x: Any, y: Any, kind: int, k: int, stride: int, sizes: tuple[int, int, int, int],
    first: int, last: int,
) -> None:  # fmt: skip
    """Pools images with a margin of k // 2.

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
    for plane in range(groups * (last - first)):
        plane = plane // (last - first) * channels + first + plane % (last - first)
        x_at, y_at = plane * height * width * LANES, plane * out_height * out_width * LANES
        for out in range(out_height * out_width):
            window = _window(out // out_width, out % out_width, stride, k, height, width)
            if kind == MAXIMUM:
                value, _ = _largest(x, x_at, width, window, k)
            else:
                share = x.dtype.type(_share(kind, k, window))
                value = _average(x, x_at, width, window, share)
            store(y, y_at + out * LANES, value)


@compiled
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
    nothing = splat(x.dtype.type(0))
    for plane in range(groups * (last - first)):
        plane = plane // (last - first) * channels + first + plane % (last - first)
        x_at, d_at = plane * height * width * LANES, plane * out_height * out_width * LANES
        for pixel in range(height * width):
            store(d_x, x_at + pixel * LANES, nothing)
        for out in range(out_height * out_width):
            window = _window(out // out_width, out % out_width, stride, k, height, width)
            value = load(d, d_at + out * LANES)
            if kind == MAXIMUM:
                _, place = _largest(x, x_at, width, window, k)
                _add_at(d_x, x_at, width, window, k, place, value)
            else:
                share = splat(x.dtype.type(_share(kind, k, window)))
                _add_to_all(d_x, x_at, width, window, multiply(value, share))


@compiled
def _add_at(
    d_x: Any, at: int, width: int, window: tuple[int, int, int, int], k: int, place: Any,
    value: Any,
) -> None:  # fmt: skip
    top, bottom, left, right = window
    for row in range(top, bottom):
        for column in range(left, right):
            offset = at + (row * width + column) * LANES
            here = splat(d_x.dtype.type((row - top) * k + column - left))
            store(d_x, offset, add(load(d_x, offset), where_equal(place, here, value)))


@compiled
def _add_to_all(
    d_x: Any, at: int, width: int, window: tuple[int, int, int, int], value: Any
) -> None:
    top, bottom, left, right = window
    for row in range(top, bottom):
        for column in range(left, right):
            offset = at + (row * width + column) * LANES
            store(d_x, offset, add(load(d_x, offset), value))


@compiled
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


@compiled
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
