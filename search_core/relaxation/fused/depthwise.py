"""Depthwise convolutions of many operations at once.

Legend: n images, c channels of all operations, h and w a channel's height and width, k taps along
an axis; a tap is a weight of a kernel.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.arithmetic import Kernels
from search_core.relaxation.fused import launch

_BLOCK: Final = 256
"""Values that a program makes: pixels of one channel, or all pixels of some if there are few."""

_NUM_WARPS: Final = 2

_BLOCK_OF_WEIGHTS: Final = 128
"""Values that a program sums up for the weights."""

_SIZES: Final = ["channels", "in_h", "in_w", "out_h", "out_w"]
"""Arguments of which a kernel would gain nothing by being compiled for some of their values."""


@triton.jit(do_not_specialize=_SIZES)
def _forward(
    x, weight, y, x_stride, channels, in_h, in_w, out_h, out_w,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr,
    block_of_channels: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * block_of_channels + tl.arange(0, block_of_channels)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    is_channel = channel < channels
    is_pixel = pixel < out_h * out_w
    top = (pixel // out_w) * stride - (kernel // 2) * dilation
    left = (pixel % out_w) * stride - (kernel // 2) * dilation
    corner = x + n * x_stride + channel[:, None] * (in_h * in_w) + (top * in_w + left)[None, :]
    taps = weight + channel * (kernel * kernel)
    total = tl.zeros([block_of_channels, block], dtype=acc)
    for i in tl.static_range(kernel):
        h = top + i * dilation
        is_row = is_pixel & (h >= 0) & (h < in_h)
        for j in tl.static_range(kernel):
            w = left + j * dilation
            seen = is_row & (w >= 0) & (w < in_w)
            value = tl.load(
                corner + (i * dilation * in_w + j * dilation),
                mask=is_channel[:, None] & seen[None, :], other=0.0,
            ).to(acc)  # fmt: skip
            tap = tl.load(taps + (i * kernel + j), mask=is_channel, other=0.0).to(acc)
            total += value * tap[:, None]
    target = y + (n * channels + channel[:, None]) * (out_h * out_w) + pixel[None, :]
    tl.store(target, total.to(y.dtype.element_ty), mask=is_channel[:, None] & is_pixel[None, :])


@triton.jit(do_not_specialize=_SIZES)
def _backward(
    d_y, weight, d_x, d_y_stride, channels, in_h, in_w, out_h, out_w,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr, add: tl.constexpr,
    block_of_channels: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * block_of_channels + tl.arange(0, block_of_channels)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    is_channel = channel < channels
    is_pixel = pixel < in_h * in_w
    inside = is_channel[:, None] & is_pixel[None, :]
    bottom = pixel // in_w + (kernel // 2) * dilation
    right = pixel % in_w + (kernel // 2) * dilation
    plane = d_y + n * d_y_stride + channel[:, None] * (out_h * out_w)
    taps = weight + channel * (kernel * kernel)
    target = d_x + (n * channels + channel[:, None]) * (in_h * in_w) + pixel[None, :]
    if add:
        total = tl.load(target, mask=inside, other=0.0).to(acc)
    else:
        total = tl.zeros([block_of_channels, block], dtype=acc)
    for i in tl.static_range(kernel):
        h = bottom - i * dilation
        is_row = is_pixel & (h >= 0)
        if stride > 1:
            is_row = is_row & (h % stride == 0)
            h = h // stride
        is_row = is_row & (h < out_h)
        for j in tl.static_range(kernel):
            w = right - j * dilation
            seen = is_row & (w >= 0)
            if stride > 1:
                seen = seen & (w % stride == 0)
                w = w // stride
            seen = seen & (w < out_w)
            value = tl.load(
                plane + (h * out_w + w)[None, :],
                mask=is_channel[:, None] & seen[None, :], other=0.0,
            ).to(acc)  # fmt: skip
            tap = tl.load(taps + (i * kernel + j), mask=is_channel, other=0.0).to(acc)
            total += value * tap[:, None]
    tl.store(target, total.to(d_x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=[*_SIZES, "count"])
def _backward_of_weight(
    x, d_y, partial, x_stride, d_y_stride, channels, count, in_h, in_w, out_h, out_w,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """A channel's sum for each tap over as many pixels, of any images, as registers hold."""
    split = tl.program_id(0)
    channel = tl.program_id(1)
    size = out_h * out_w
    index = split * block + tl.arange(0, block)
    inside = index < count
    n = (index // size).to(tl.int64)
    pixel = index % size
    source = d_y + n * d_y_stride + channel * size + pixel
    slope = tl.load(source, mask=inside, other=0.0).to(acc)
    top = (pixel // out_w) * stride - (kernel // 2) * dilation
    left = (pixel % out_w) * stride - (kernel // 2) * dilation
    corner = x + n * x_stride + channel * (in_h * in_w) + (top * in_w + left)
    target = partial + (split.to(tl.int64) * channels + channel) * (kernel * kernel)
    for i in tl.static_range(kernel):
        h = top + i * dilation
        is_row = inside & (h >= 0) & (h < in_h)
        for j in tl.static_range(kernel):
            w = left + j * dilation
            value = tl.load(
                corner + (i * dilation * in_w + j * dilation),
                mask=is_row & (w >= 0) & (w < in_w), other=0.0,
            ).to(acc)  # fmt: skip
            tl.store(target + (i * kernel + j), tl.sum(value * slope, axis=0))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_nchw: Tensor, slides: tuple[tuple[int, int], ...], *weights_c1kk: Tensor
    ) -> tuple[Tensor, ...]:
        x_nchw = launch.dense(x_nchw)
        n, c, *size = x_nchw.shape
        results = []
        for (stride, dilation), weight_c1kk in zip(slides, weights_c1kk, strict=True):
            out_h, out_w = ((each - 1) // stride + 1 for each in size)
            y_nchw = x_nchw.new_empty((n, c, out_h, out_w))
            blocks, grid = _divided(n, c, out_h * out_w)
            _forward[grid](
                x_nchw, weight_c1kk, y_nchw, x_nchw.stride(0), c, *size, out_h, out_w,
                weight_c1kk.shape[2], stride, dilation, *blocks, launch.accumulator(x_nchw),
                num_warps=_NUM_WARPS,
            )  # fmt: skip
            results.append(y_nchw)
        # What only the weights' gradient needs is not kept where nobody asks for it.
        needed = x_nchw if any(ctx.needs_input_grad[2:]) else None
        ctx.save_for_backward(needed, *weights_c1kk)
        ctx.settings = (slides, tuple(size))
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        x_nchw, *weights_c1kk = ctx.saved_tensors
        slides, size = ctx.settings
        d_ys_nchw = [launch.dense(each) for each in d_outputs]
        n, c = d_ys_nchw[0].shape[:2]
        acc = launch.accumulator(d_ys_nchw[0])
        d_x_nchw = d_ys_nchw[0].new_empty((n, c, *size)) if ctx.needs_input_grad[0] else None
        d_weights: list[Tensor | None] = []
        for index, (slide, weight_c1kk, d_y_nchw) in enumerate(
            zip(slides, weights_c1kk, d_ys_nchw, strict=True)
        ):
            if d_x_nchw is not None:
                blocks, grid = _divided(n, c, size[0] * size[1])
                _backward[grid](
                    d_y_nchw, weight_c1kk, d_x_nchw, d_y_nchw.stride(0), c, *size,
                    *d_y_nchw.shape[2:], weight_c1kk.shape[2], *slide, index > 0, *blocks, acc,
                    num_warps=_NUM_WARPS,
                )  # fmt: skip
            d_weights.append(
                _weight_gradient(x_nchw, d_y_nchw, weight_c1kk, slide)
                if ctx.needs_input_grad[2 + index]
                else None
            )
        return d_x_nchw, None, *d_weights


def _weight_gradient(
    x_nchw: Tensor, d_y_nchw: Tensor, weight_c1kk: Tensor, slide: tuple[int, int]
) -> Tensor:
    n, c, *size = d_y_nchw.shape
    kernel = weight_c1kk.shape[2]
    count = n * size[0] * size[1]
    num_splits = triton.cdiv(count, _BLOCK_OF_WEIGHTS)
    partial = d_y_nchw.new_empty(
        (num_splits, c, kernel * kernel), dtype=launch.statistics_dtype(d_y_nchw)
    )
    # A warp of its own adds up without waiting for others.
    _backward_of_weight[num_splits, c](
        x_nchw, d_y_nchw, partial, x_nchw.stride(0), d_y_nchw.stride(0), c, count,
        *x_nchw.shape[2:], *size, kernel, *slide, _BLOCK_OF_WEIGHTS,
        launch.accumulator(d_y_nchw), num_warps=1,
    )  # fmt: skip
    return partial.sum(dim=0).view_as(weight_c1kk).to(weight_c1kk.dtype)


def _divided(n: int, c: int, pixels: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Channels and pixels of a program, and how many programs there are along each dimension."""
    block = launch.power_of_two(pixels, 16, _BLOCK)
    channels = launch.power_of_two(c, 1, _BLOCK // block)
    return (channels, block), (triton.cdiv(pixels, block), triton.cdiv(c, channels), n)


def depthwise(x_nchw: Tensor, kernels: Sequence[Kernels]) -> Sequence[Tensor]:
    """Convolves each channel with its kernel, padded to keep the size at stride 1.

    Args:
        x_nchw: Images.
        kernels: Of each convolution of them.

    Returns:
        [n, c, h / stride rounded up, w / stride rounded up] of each, of the images' type or
        autocast's.
    """
    x_nchw = launch.cast(x_nchw)
    with launch.device_of(x_nchw):
        results: tuple[Tensor, ...] = _Depthwise.apply(
            x_nchw,
            tuple((each.stride, each.dilation) for each in kernels),
            *(each.weight_c1kk.contiguous() for each in kernels),
        )
    return results
