"""Batch normalisations of many operations at once, with what follows them.

Legend: n images, k operations, c channels of one of them, r pixels of an image, t sums of
operations, m operations of a sum.
"""

from functools import cache, reduce
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.arithmetic import Sums
from search_core.relaxation.fused import launch, parts

_BLOCK: Final = 512
_CHANNELS: Final = 64


@triton.jit
def _measure(
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
    x, y, base, mean, deviation, scale, shift, members, x_stride, base_stride, operations, size,
    channels: tl.constexpr, pixels: tl.constexpr,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr,
    sums: tl.constexpr, has_base: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Normalised, scaled and shifted; sums of operations."""
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
            place = operation * channels * pixels + within
        else:
            known = inside
            row = index // pixels
            place = index
        value = tl.load(x + n * x_stride + place, mask=known, other=0.0).to(acc)
        value = (value - tl.load(mean + row, mask=known, other=0.0)) * tl.load(
            deviation + row, mask=known, other=0.0
        )
        if has_scale:
            value = value * tl.load(scale + row, mask=known, other=0.0)
        if has_shift:
            value = value + tl.load(shift + row, mask=known, other=0.0)
        if rectify:
            value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
        total += value
    tl.store(y + n * size + index, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _measure_backward(
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
def _apply_backward(
    x, d_y, d_x, partial, mean, deviation, scale, shift, sum_of, count, length, num_parts,
    x_stride, d_y_stride,
    channels_of_operation: tl.constexpr, pixels: tl.constexpr,
    has_scale: tl.constexpr, has_shift: tl.constexpr, rectify: tl.constexpr, sums: tl.constexpr,
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
    factor = divisor
    if has_scale:
        times = tl.load(scale + channel)
        factor = factor * times
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
        d_value = factor * (slope - of_slopes - normal * of_products)
        target_of_value = d_x + (n * channels + channel) * pixels + pixel
        tl.store(target_of_value, d_value.to(d_x.dtype.element_ty), mask=inside)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_nkcr: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        base_ntcr: Tensor | None,
        known_2kc: Tensor | None,
        eps: float,
        rectify: bool,
        sums: Sums | None,
    ) -> tuple[Tensor, Tensor]:
        x_nkcr = launch.dense(x_nkcr)
        n, k, c, r = x_nkcr.shape
        scale_kc, shift_kc = (
            None if each is None else each.contiguous() for each in (scale_kc, shift_kc)
        )
        acc = launch.accumulator(x_nkcr)
        if known_2kc is None:
            measured_2kc, deviation_kc = _measured(x_nkcr, eps)
        else:
            measured_2kc, deviation_kc = known_2kc, (known_2kc[1] + eps).rsqrt()
        base = None if base_ntcr is None else launch.dense(base_ntcr)
        of_sums = None if sums is None else _tables(sums, k, x_nkcr.device)
        shape = (n, k, c, r) if sums is None else (n, len(sums), c, r)
        dtypes = [each.dtype for each in (x_nkcr, base) if each is not None]
        y = x_nkcr.new_empty(shape, dtype=reduce(torch.promote_types, dtypes))
        size = y[0].numel()
        _apply[triton.cdiv(size, _BLOCK), n](
            x_nkcr, y, base, measured_2kc, deviation_kc, scale_kc, shift_kc,
            None if of_sums is None else of_sums[0], x_nkcr.stride(0),
            0 if base is None else base.stride(0),
            1 if of_sums is None else of_sums[0].shape[1], size, c, r, scale_kc is not None,
            shift_kc is not None, rectify, sums is not None, base is not None, _BLOCK, acc,
        )  # fmt: skip
        kept = (x_nkcr, measured_2kc, deviation_kc, scale_kc, shift_kc)
        ctx.save_for_backward(*(kept if any(ctx.needs_input_grad[:3]) else ()))
        ctx.settings = (rectify, None if of_sums is None else of_sums[1], known_2kc is not None)
        ctx.mark_non_differentiable(measured_2kc)
        ctx.set_materialize_grads(False)
        return y, measured_2kc

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        rectify, sum_of_k, is_known = ctx.settings
        if is_known:
            raise RuntimeError("a normalisation by known statistics has no derivative here")
        d_base = d_outputs[0] if ctx.needs_input_grad[3] else None
        if d_outputs[0] is None or not any(ctx.needs_input_grad[:3]):
            return None, None, None, d_base, None, None, None, None
        x_nkcr, measured_2kc, deviation_kc, scale_kc, shift_kc = ctx.saved_tensors
        d_y = launch.dense(d_outputs[0])
        n, k, c, r = x_nkcr.shape
        acc = launch.accumulator(x_nkcr)
        flags = (scale_kc is not None, shift_kc is not None, rectify, sum_of_k is not None)
        num_splits, length = launch.splits(k * c, n * r, _BLOCK)
        partial = measured_2kc.new_empty((num_splits, 2, k, c))
        _measure_backward[k * c, num_splits](
            x_nkcr, d_y, partial, measured_2kc, deviation_kc, scale_kc, shift_kc, sum_of_k, n * r,
            length, x_nkcr.stride(0), d_y.stride(0), c, r, *flags, _BLOCK, acc,
        )  # fmt: skip
        d_x_nkcr = d_scale_kc = d_shift_kc = None
        if ctx.needs_input_grad[0]:
            d_x_nkcr = torch.empty_like(x_nkcr, memory_format=torch.contiguous_format)
            _apply_backward[k * c, num_splits](
                x_nkcr, d_y, d_x_nkcr, partial, measured_2kc, deviation_kc, scale_kc, shift_kc,
                sum_of_k, n * r, length, num_splits, x_nkcr.stride(0), d_y.stride(0), c, r, *flags,
                triton.next_power_of_2(num_splits), _BLOCK, acc,
            )  # fmt: skip
        if any(ctx.needs_input_grad[1:3]):
            d_shift_kc, d_scale_kc = parts.total(partial).unbind()
            d_scale_kc = None if scale_kc is None else d_scale_kc.to(scale_kc.dtype)
            d_shift_kc = None if shift_kc is None else d_shift_kc.to(shift_kc.dtype)
        return d_x_nkcr, d_scale_kc, d_shift_kc, d_base, None, None, None, None


def _measured(x_nkcr: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance, and what to multiply differences to the mean with."""
    n, k, c, r = x_nkcr.shape
    exact, acc = launch.statistics_dtype(x_nkcr), launch.accumulator(x_nkcr)
    num_splits, length = launch.splits(k * c, n * r, _BLOCK)
    partial = x_nkcr.new_empty((num_splits, 2, k * c), dtype=exact)
    measured_2kc = x_nkcr.new_empty((2, k, c), dtype=exact)
    deviation_kc = x_nkcr.new_empty((k, c), dtype=exact)
    _measure[k * c, num_splits](x_nkcr, partial, n * r, length, x_nkcr.stride(0), r, _BLOCK, acc)
    _conclude[(triton.cdiv(k * c, _CHANNELS),)](
        x_nkcr, partial, measured_2kc, deviation_kc, k * c, num_splits, n * r, r, eps,
        _CHANNELS, acc,
    )  # fmt: skip
    return measured_2kc, deviation_kc


@cache
def _tables(sums: Sums, operations: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The operations of each sum, filled up with -1, and the sum of each operation.

    They are brought to the device once, and stay there: a captured step brings nothing.
    """
    most = max(map(len, sums))
    members_tm = [[*members, *[-1] * (most - len(members))] for members in sums]
    sum_of_k = [0] * operations
    for number, members in enumerate(sums):
        for member in members:
            sum_of_k[member] = number
    return (
        torch.tensor(members_tm, dtype=torch.int32, device=device),
        torch.tensor(sum_of_k, dtype=torch.int32, device=device),
    )


def normalise(
    x_nkchw: Tensor,
    scale_kc: Tensor | None,
    shift_kc: Tensor | None,
    *,
    eps: float,
    rectify: bool = False,
    sums: Sums | None = None,
    base_ntchw: Tensor | None = None,
    known_2kc: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalises each channel of each operation, by the batch's statistics or known ones.

    Args:
        x_nkchw: The operations' images side by side.
        scale_kc: What normalised values are multiplied with; None leaves them.
        shift_kc: What is added then.
        eps: Added to the variance.
        rectify: Whether a ReLU follows.
        sums: How operations are added up, if they are; each is part of one sum.
        base_ntchw: What the sums are added to.
        known_2kc: Means and variances to normalise by; then there is no derivative.

    Returns:
        [n, k, c, h, w], or the sums [n, t, c, h, w]; and mean and unbiased variance, [2, k, c], in
        single precision at least, through which no gradient goes.

    Raises:
        ValueError: A channel has one value only, and its statistics are not known.
    """
    n, _, _, height, width = x_nkchw.shape
    if known_2kc is None and n * height * width == 1:
        raise ValueError(
            f"expected more than 1 value per channel when training, got {tuple(x_nkchw.shape)}"
        )
    with launch.device_of(x_nkchw):
        result, measured_2kc = _Normalise.apply(
            x_nkchw.flatten(3),
            scale_kc,
            shift_kc,
            None if base_ntchw is None else base_ntchw.flatten(3),
            known_2kc,
            eps,
            rectify,
            sums,
        )
    return result.unflatten(3, (height, width)), measured_2kc
