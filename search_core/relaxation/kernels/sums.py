"""Weighted sums of tensors in lanes, and their gradients.

Legend: g groups of as many images as there are lanes, l lanes, c channels, m pixels.
"""

from typing import Any

import numpy as np

from search_core.relaxation.kernels.compiling import LANES, compiled
from search_core.relaxation.kernels.vectors import add, fma, load, multiply, splat, store, subtract
from search_core.relaxation.kernels.vectors import total as total_of


@compiled
def add_scaled(x: Any, folded: Any, total: Any, first: bool, sizes: tuple[int, int, int]) -> None:
    """Adds `x * scale + shift`.

    Args:
        x: [g, c, m, l].
        folded: Scale and shift, [2, c].
        total: What it is added to, like x.
        first: Whether it is written instead.
        sizes: g, c and m.
    """
    groups, channels, pixels = sizes
    for group in range(groups):
        for c in range(channels):
            scales, shifts = splat(folded[c]), splat(folded[channels + c])
            start = (group * channels + c) * pixels * LANES
            end = start + pixels * LANES
            if first:
                for offset in range(start, end, LANES):
                    store(total, offset, fma(load(x, offset), scales, shifts))
            else:
                for offset in range(start, end, LANES):
                    value = add(load(total, offset), shifts)
                    store(total, offset, fma(load(x, offset), scales, value))


@compiled
def add_multiple(x: Any, factor: Any, total: Any, first: bool) -> None:
    """Adds a multiple.

    Args:
        x: What is added, as many numbers as fill vectors.
        factor: Its factor.
        total: What it is added to.
        first: Whether it is written instead.
    """
    factors = splat(x.dtype.type(factor))
    if first:
        for offset in range(0, x.size, LANES):
            store(total, offset, multiply(load(x, offset), factors))
    else:
        for offset in range(0, x.size, LANES):
            store(total, offset, fma(load(x, offset), factors, load(total, offset)))


@compiled
def dot(x: Any, y: Any) -> float:
    """The sum of products.

    Args:
        x: As many numbers as fill vectors.
        y: As many.
    """
    result = 0.0
    block = 256 * LANES
    for start in range(0, x.size, block):
        value = splat(x.dtype.type(0))
        for offset in range(start, min(start + block, x.size), LANES):
            value = fma(load(x, offset), load(y, offset), value)
        result += total_of(value)
    return result


@compiled
def gradient_sums(d: Any, y: Any, means: Any, found: Any, sizes: tuple[int, int, int]) -> None:
    """Sums of a gradient, and of its products with what an output is above its mean.

    Args:
        d: The gradient, [g, c, m, l]; 0 where no image is.
        y: The output, likewise.
        means: [c].
        found: [2, c]; written.
        sizes: g, c and m.
    """
    groups, channels, pixels = sizes
    for c in range(channels):
        mean = splat(means[c])
        of_d, of_products = 0.0, 0.0
        for group in range(groups):
            start = (group * channels + c) * pixels * LANES
            first = second = splat(d.dtype.type(0))
            for offset in range(start, start + pixels * LANES, LANES):
                value = load(d, offset)
                first = add(first, value)
                second = fma(value, subtract(load(y, offset), mean), second)
            of_d += total_of(first)
            of_products += total_of(second)
        found[c] = of_d
        found[channels + c] = of_products


@compiled
def fold(
    statistics: Any, eps: float, multiplier: float, scale: Any, shift: Any, folded: Any
) -> None:
    """What a normalisation and a multiplier do to an output: a scale and a shift.

    Args:
        statistics: Mean and biased variance, [2, c].
        eps: The normalisation's.
        multiplier: What comes behind it.
        scale: The scale that it learns, [c].
        shift: The shift, [c].
        folded: Scale and shift of both together, [2, c]; written.
    """
    channels = scale.size
    for c in range(channels):
        factor = multiplier * scale[c] / np.sqrt(statistics[channels + c] + eps)
        folded[c] = factor
        folded[channels + c] = multiplier * shift[c] - statistics[c] * factor


@compiled
def norm_backward(
    sums: Any, count: int, statistics: Any, eps: float, multiplier: float, scale: Any, shift: Any,
    coefficients: Any, d_norm: Any,
) -> float:  # fmt: skip
    """The gradients of a normalisation and of the multiplier behind it.

    Args:
        sums: Of the gradient, and of its products with what the output is above its mean, [2, c].
        count: Values of a channel.
        statistics: Mean and biased variance, [2, c].
        eps: The normalisation's.
        multiplier: What comes behind it.
        scale: The scale that it learns, [c].
        shift: The shift, [c].
        coefficients: a, b and c of the gradient `a * d + b * y + c` of its input y, [3, c];
            written.
        d_norm: The gradients of scale and shift, [2, c]; written.

    Returns:
        The gradient of the multiplier.
    """
    channels = scale.size
    found = 0.0
    for c in range(channels):
        inverse = 1.0 / np.sqrt(statistics[channels + c] + eps)
        of_d, of_products = float(sums[c]), float(sums[channels + c]) * inverse
        found += of_products * scale[c] + of_d * shift[c]
        d_norm[c] = multiplier * of_products
        d_norm[channels + c] = multiplier * of_d
        slope = multiplier * scale[c] * inverse
        of_output = -slope * of_products * inverse / count
        coefficients[c] = slope
        coefficients[channels + c] = of_output
        coefficients[2 * channels + c] = -slope * of_d / count - of_output * statistics[c]
    return found
