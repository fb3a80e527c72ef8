"""The programs of batch normalisations.

Legend: a row is a channel of an operation; pixels are an image's.
"""

import triton
import triton.language as tl


@triton.jit
def measure(
    x, partial, count, length, x_stride, pixels: tl.constexpr, block: tl.constexpr,
    acc: tl.constexpr,
):  # fmt: skip
    """Sums of a channel's differences to its first value, and of their squares."""
    channel = tl.program_id(0)
    channels = tl.num_programs(0)
    split = tl.program_id(1)
    origin = tl.load(x + channel * pixels).to(acc)
    total = tl.zeros([block], dtype=acc)
    squares = tl.zeros([block], dtype=acc)
    first = split * length
    for start in range(first, first + length, block):
        index = start + tl.arange(0, block)
        inside = index < count
        n = (index // pixels).to(tl.int64)
        address = x + n * x_stride + channel * pixels + index % pixels
        away = tl.where(inside, tl.load(address, mask=inside, other=0.0).to(acc) - origin, 0.0)
        total += away
        squares += away * away
    target = partial + (split * 2) * channels + channel
    tl.store(target, tl.sum(total, axis=0))
    tl.store(target + channels, tl.sum(squares, axis=0))


@triton.jit
def conclude(
    x, partial, measured, deviation, channels, num_splits, count, pixels, eps,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Mean, unbiased variance, and what to divide by, of the sums of all splits."""
    channel = tl.program_id(0) * block + tl.arange(0, block)
    inside = channel < channels
    total = tl.zeros([block], dtype=acc)
    squares = tl.zeros([block], dtype=acc)
    for split in range(num_splits):
        source = partial + (split * 2) * channels + channel
        total += tl.load(source, mask=inside, other=0.0)
        squares += tl.load(source + channels, mask=inside, other=0.0)
    away = total / count
    variance = tl.maximum(squares / count - away * away, 0.0)
    origin = tl.load(x + channel * pixels, mask=inside, other=0.0).to(acc)
    tl.store(measured + channel, origin + away, mask=inside)
    tl.store(measured + channels + channel, variance * count / (count - 1), mask=inside)
    tl.store(deviation + channel, 1.0 / tl.sqrt(variance + eps), mask=inside)


@triton.jit
def apply(
    x, y, base, mean, deviation, scale, shift, factor, members, x_stride, base_stride,
    operations, size, eps,
    channels: tl.constexpr, pixels: tl.constexpr, given: tl.constexpr, is_known: tl.constexpr,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr,
    has_factor: tl.constexpr, sums: tl.constexpr, has_base: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Normalised, scaled and shifted; sums of operations, each times a factor.

    A deviation is what to multiply with; where statistics are known it is a variance. Where images
    are given of fewer operations than there are, these are read again; else `given` is 0.
    """
    tl.static_assert(sums or not has_factor)  # a factor is an operation's in a sum
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < size
    if has_base:
        total = tl.load(base + n * base_stride + index, mask=inside, other=0.0).to(acc)
    else:
        total = tl.zeros([block], dtype=acc)
    within = index % (channels * pixels)
    for number in range(operations):
        if sums:
            # A sum of fewer operations than others ends with those before the first.
            which = index // (channels * pixels) * operations + number
            operation = tl.load(members + which, mask=inside, other=-1)
            known = inside & (operation >= 0)
            row = operation * channels + within // pixels
            place = (operation % given if given > 0 else operation) * (channels * pixels) + within
        else:
            known = inside
            row = index // pixels
            place = index
            if given > 0:
                place = index % (given * channels * pixels)
        value = tl.load(x + n * x_stride + place, mask=known, other=0.0).to(acc)
        divisor = tl.load(deviation + row, mask=known, other=1.0)
        if is_known:
            divisor = 1.0 / tl.sqrt(divisor + eps)
        value = (value - tl.load(mean + row, mask=known, other=0.0)) * divisor
        if has_scale:
            value = value * tl.load(scale + row, mask=known, other=0.0)
        if has_shift:
            value = value + tl.load(shift + row, mask=known, other=0.0)
        if rectify:
            value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
        if has_factor:
            value = value * tl.load(factor + operation, mask=known, other=0.0)
        total += value
    tl.store(y + n * size + index, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def measure_backward(
    x, d_y, partial, mean, deviation, scale, shift, sum_of, count, length, x_stride, d_y_stride,
    channels_of_operation: tl.constexpr, pixels: tl.constexpr,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr, sums: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Sums of a channel's gradients, and of their products with what was normalised."""
    channel = tl.program_id(0)
    channels = tl.num_programs(0)
    split = tl.program_id(1)
    middle = tl.load(mean + channel)
    divisor = tl.load(deviation + channel)
    channel_of_y = channel
    if sums:
        target = tl.load(sum_of + channel // channels_of_operation)
        channel_of_y = target * channels_of_operation + channel % channels_of_operation
    total = tl.zeros([block], dtype=acc)
    products = tl.zeros([block], dtype=acc)
    first = split * length
    for start in range(first, first + length, block):
        index = start + tl.arange(0, block)
        inside = index < count
        n = (index // pixels).to(tl.int64)
        pixel = index % pixels
        value = tl.load(x + n * x_stride + channel * pixels + pixel, mask=inside, other=0.0)
        normal = (value.to(acc) - middle) * divisor
        source = d_y + n * d_y_stride + channel_of_y * pixels + pixel
        slope = tl.load(source, mask=inside, other=0.0).to(acc)
        if rectify:
            result = normal
            if has_scale:
                result = result * tl.load(scale + channel)
            if has_shift:
                result = result + tl.load(shift + channel)
            slope = tl.where(result > 0.0, slope, 0.0)
        total += slope
        products += slope * normal
    target = partial + (split * 2) * channels + channel
    tl.store(target, tl.sum(total, axis=0))
    tl.store(target + channels, tl.sum(products, axis=0))


@triton.jit
def apply_backward(
    x, d_y, d_x, partial, mean, deviation, scale, shift, factor, sum_of, count, length, num_parts,
    x_stride, d_y_stride,
    channels_of_operation: tl.constexpr, pixels: tl.constexpr,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr, sums: tl.constexpr,
    has_factor: tl.constexpr,
    most_parts: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """The gradient of a channel's values, given the parts of its sums."""
    channel = tl.program_id(0)
    channels = tl.num_programs(0)
    split = tl.program_id(1)
    part = tl.arange(0, most_parts)
    parts = partial + part * 2 * channels + channel
    of_slopes = tl.sum(tl.load(parts, mask=part < num_parts, other=0.0), axis=0) / count
    of_products = tl.load(parts + channels, mask=part < num_parts, other=0.0)
    of_products = tl.sum(of_products, axis=0) / count
    middle = tl.load(mean + channel)
    divisor = tl.load(deviation + channel)
    channel_of_y = channel
    if sums:
        target = tl.load(sum_of + channel // channels_of_operation)
        channel_of_y = target * channels_of_operation + channel % channels_of_operation
    slope_of_all = divisor
    if has_scale:
        times = tl.load(scale + channel)
        slope_of_all = slope_of_all * times
    if has_factor:
        slope_of_all = slope_of_all * tl.load(factor + channel // channels_of_operation)
    first = split * length
    for start in range(first, first + length, block):
        index = start + tl.arange(0, block)
        inside = index < count
        n = (index // pixels).to(tl.int64)
        pixel = index % pixels
        source = x + n * x_stride + channel * pixels + pixel
        normal = (tl.load(source, mask=inside, other=0.0).to(acc) - middle) * divisor
        source = d_y + n * d_y_stride + channel_of_y * pixels + pixel
        slope = tl.load(source, mask=inside, other=0.0).to(acc)
        if rectify:
            result = normal
            if has_scale:
                result = result * times
            if has_shift:
                result = result + tl.load(shift + channel)
            slope = tl.where(result > 0.0, slope, 0.0)
        d_value = slope_of_all * (slope - of_slopes - normal * of_products)
        target_of_value = d_x + (n * channels + channel) * pixels + pixel
        tl.store(target_of_value, d_value.to(d_x.dtype.element_ty), mask=inside)


@triton.jit
def of_affine(
    partial, scale, shift, factor, d_scale, d_shift, d_factor, splits, channels,
    has_scale: tl.constexpr, has_shift: tl.constexpr, has_factor: tl.constexpr,
    at_once: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """An operation's gradients of what comes behind its normalisation, of the parts of its sums."""
    operation = tl.program_id(0)
    rows = tl.num_programs(0) * channels
    times = 1.0
    if has_factor:
        times = tl.load(factor + operation)
    of_factor = tl.zeros([block], dtype=acc)
    for first in range(0, channels, block):
        channel = first + tl.arange(0, block)
        inside = channel < channels
        row = operation * channels + channel
        slopes = tl.zeros([at_once, block], dtype=acc)
        products = tl.zeros([at_once, block], dtype=acc)
        for start in range(0, splits, at_once):
            split = start + tl.arange(0, at_once)[:, None]
            known = (split < splits) & inside[None, :]
            source = partial + split * (2 * rows) + row[None, :]
            slopes += tl.load(source, mask=known, other=0.0)
            products += tl.load(source + rows, mask=known, other=0.0)
        of_shift = tl.sum(slopes, axis=0)
        of_scale = tl.sum(products, axis=0)
        result = of_scale
        if has_scale:
            result = of_scale * tl.load(scale + row, mask=inside, other=0.0)
            tl.store(d_scale + row, of_scale * times, mask=inside)
        if has_shift:
            result += of_shift * tl.load(shift + row, mask=inside, other=0.0)
            tl.store(d_shift + row, of_shift * times, mask=inside)
        of_factor += result
    if has_factor:
        tl.store(d_factor + operation, tl.sum(of_factor, axis=0))
