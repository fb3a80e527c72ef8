"""Batch normalisations of many operations at once, with what follows them.

Legend: n images, k operations, c channels of one of them, r pixels of an image.
"""

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.fused import launch

_BLOCK: Final = 512
_CHANNELS: Final = 64


@triton.jit
def _measure(
    x, partial, count, length, pixels, x_stride, block: tl.constexpr, acc: tl.constexpr
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
def _conclude(
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
def _apply(
    x, y, mean, deviation, scale, shift, x_stride, operations, channels, pixels,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Normalised, scaled and shifted; the sum of several operations."""
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < channels * pixels
    channel = index // pixels
    total = tl.zeros([block], dtype=acc)
    for operation in range(operations):
        row = operation * channels + channel
        value = tl.load(
            x + n * x_stride + operation * channels * pixels + index, mask=inside, other=0.0
        ).to(acc)
        value = (value - tl.load(mean + row, mask=inside, other=0.0)) * tl.load(
            deviation + row, mask=inside, other=0.0
        )
        if has_scale:
            value = value * tl.load(scale + row, mask=inside, other=0.0)
        if has_shift:
            value = value + tl.load(shift + row, mask=inside, other=0.0)
        if rectify:
            value = tl.maximum(value, 0.0)
        total += value
    tl.store(y + n * channels * pixels + index, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _measure_backward(
    x, d_y, partial, mean, deviation, scale, shift,
    count, length, pixels, channels_of_y, x_stride, d_y_stride,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Sums of a channel's gradients, and of their products with what was normalised."""
    channel = tl.program_id(0)
    channels = tl.num_programs(0)
    split = tl.program_id(1)
    middle = tl.load(mean + channel)
    divisor = tl.load(deviation + channel)
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
        source = d_y + n * d_y_stride + (channel % channels_of_y) * pixels + pixel
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
def _apply_backward(
    x, d_y, d_x, sums, mean, deviation, scale, shift, x_stride, d_y_stride,
    channels, channels_of_y, pixels, count,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < channels * pixels
    channel = index // pixels
    divisor = tl.load(deviation + channel, mask=inside, other=0.0)
    value = tl.load(x + n * x_stride + index, mask=inside, other=0.0).to(acc)
    normal = (value - tl.load(mean + channel, mask=inside, other=0.0)) * divisor
    source = d_y + n * d_y_stride + (channel % channels_of_y) * pixels + index % pixels
    slope = tl.load(source, mask=inside, other=0.0).to(acc)
    factor = divisor
    if has_scale:
        times = tl.load(scale + channel, mask=inside, other=0.0)
        factor = factor * times
    if rectify:
        result = normal
        if has_scale:
            result = result * times
        if has_shift:
            result = result + tl.load(shift + channel, mask=inside, other=0.0)
        slope = tl.where(result > 0.0, slope, 0.0)
    of_slopes = tl.load(sums + channel, mask=inside, other=0.0) / count
    of_products = tl.load(sums + channels + channel, mask=inside, other=0.0) / count
    d_value = factor * (slope - of_slopes - normal * of_products)
    tl.store(d_x + n * channels * pixels + index, d_value.to(d_x.dtype.element_ty), mask=inside)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_nkcr: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        eps: float,
        rectify: bool,
        add_up: bool,
    ) -> tuple[Tensor, Tensor]:
        x_nkcr = launch.dense(x_nkcr)
        n, k, c, r = x_nkcr.shape
        scale_kc, shift_kc = (
            None if each is None else each.contiguous() for each in (scale_kc, shift_kc)
        )
        exact, acc = launch.statistics_dtype(x_nkcr), launch.accumulator(x_nkcr)
        num_splits, length = launch.splits(k * c, n * r, _BLOCK)
        partial = x_nkcr.new_empty((num_splits, 2, k * c), dtype=exact)
        measured_2kc = x_nkcr.new_empty((2, k, c), dtype=exact)
        deviation_kc = x_nkcr.new_empty((k, c), dtype=exact)
        _measure[k * c, num_splits](
            x_nkcr, partial, n * r, length, r, x_nkcr.stride(0), _BLOCK, acc
        )
        _conclude[(triton.cdiv(k * c, _CHANNELS),)](
            x_nkcr, partial, measured_2kc, deviation_kc, k * c, num_splits, n * r, r, eps,
            _CHANNELS, acc,
        )  # fmt: skip
        added, channels = (k, c) if add_up else (1, k * c)
        y_ncr = x_nkcr.new_empty((n, channels, r))
        _apply[triton.cdiv(channels * r, _BLOCK), n](
            x_nkcr, y_ncr, measured_2kc, deviation_kc, scale_kc, shift_kc, x_nkcr.stride(0),
            added, channels, r, scale_kc is not None, shift_kc is not None, rectify, _BLOCK, acc,
        )  # fmt: skip
        ctx.save_for_backward(x_nkcr, measured_2kc, deviation_kc, scale_kc, shift_kc)
        ctx.settings = (rectify, channels)
        ctx.mark_non_differentiable(measured_2kc)
        ctx.set_materialize_grads(False)
        return y_ncr if add_up else y_ncr.view(n, k, c, r), measured_2kc

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        x_nkcr, measured_2kc, deviation_kc, scale_kc, shift_kc = ctx.saved_tensors
        rectify, channels = ctx.settings
        if d_outputs[0] is None:
            return (None,) * 6
        d_y = launch.dense(d_outputs[0])
        n, k, c, r = x_nkcr.shape
        acc = launch.accumulator(x_nkcr)
        flags = (scale_kc is not None, shift_kc is not None, rectify, _BLOCK, acc)
        num_splits, length = launch.splits(k * c, n * r, _BLOCK)
        partial = measured_2kc.new_empty((num_splits, 2, k, c))
        _measure_backward[k * c, num_splits](
            x_nkcr, d_y, partial, measured_2kc, deviation_kc, scale_kc, shift_kc, n * r, length, r,
            channels, x_nkcr.stride(0), d_y.stride(0), *flags,
        )  # fmt: skip
        sums_2kc = partial.sum(dim=0) if num_splits > 1 else partial[0]
        d_x_nkcr = d_scale_kc = d_shift_kc = None
        if ctx.needs_input_grad[0]:
            d_x_nkcr = torch.empty_like(x_nkcr, memory_format=torch.contiguous_format)
            _apply_backward[triton.cdiv(k * c * r, _BLOCK), n](
                x_nkcr, d_y, d_x_nkcr, sums_2kc, measured_2kc, deviation_kc, scale_kc, shift_kc,
                x_nkcr.stride(0), d_y.stride(0), k * c, channels, r, n * r, *flags,
            )  # fmt: skip
        if scale_kc is not None and ctx.needs_input_grad[1]:
            d_scale_kc = sums_2kc[1].to(scale_kc.dtype)
        if shift_kc is not None and ctx.needs_input_grad[2]:
            d_shift_kc = sums_2kc[0].to(shift_kc.dtype)
        return d_x_nkcr, d_scale_kc, d_shift_kc, None, None, None


def normalise(
    x_nkchw: Tensor,
    scale_kc: Tensor | None,
    shift_kc: Tensor | None,
    *,
    eps: float,
    rectify: bool = False,
    add_up: bool = False,
) -> tuple[Tensor, Tensor]:
    """Normalises each channel of each operation by the batch's statistics.

    Args:
        x_nkchw: The operations' images side by side.
        scale_kc: What normalised values are multiplied with; None leaves them.
        shift_kc: What is added then.
        eps: Added to the variance.
        rectify: Whether a ReLU follows.
        add_up: Whether the operations are added up.

    Returns:
        [n, k, c, h, w], or [n, c, h, w] if they are added up; and mean and unbiased variance,
        [2, k, c], in single precision at least, through which no gradient goes.

    Raises:
        ValueError: A channel has one value only.
    """
    n, *channels, height, width = x_nkchw.shape
    if n * height * width == 1:
        raise ValueError(
            f"expected more than 1 value per channel when training, got {tuple(x_nkchw.shape)}"
        )
    with launch.device_of(x_nkchw):
        result, measured_2kc = _Normalise.apply(
            x_nkchw.flatten(3), scale_kc, shift_kc, eps, rectify, add_up
        )
    return result.view(n, *(channels[1:] if add_up else channels), height, width), measured_2kc
