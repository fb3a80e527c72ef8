"""Depthwise convolutions of many operations at once.

Legend: n images, c channels of all operations, h and w a channel's height and width, k taps along
an axis; a tap is a weight of a kernel.
"""

from typing import Final

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
    x, weight, y, x_stride, y_stride, channels, in_h, in_w, out_h, out_w,
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
    target = y + n * y_stride + channel[:, None] * (out_h * out_w) + pixel[None, :]
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


def convolve(x_nchw: Tensor, kernels: Kernels, y_nchw: Tensor) -> None:
    """Convolves each channel with its kernel, padded to keep the size at stride 1.

    Args:
        x_nchw: Images, dense but for the first dimension.
        kernels: The convolution.
        y_nchw: Where the result goes; likewise.
    """
    n, c, *size = x_nchw.shape
    out_h, out_w = y_nchw.shape[2:]
    blocks, grid = _divided(n, c, out_h * out_w)
    _forward[grid](
        x_nchw, kernels.weight_c1kk, y_nchw, x_nchw.stride(0), y_nchw.stride(0), c, *size,
        out_h, out_w, kernels.weight_c1kk.shape[2], kernels.stride, kernels.dilation, *blocks,
        launch.accumulator(x_nchw), num_warps=_NUM_WARPS,
    )  # fmt: skip


def input_gradient(d_y_nchw: Tensor, kernels: Kernels, d_x_nchw: Tensor, *, add: bool) -> None:
    """The gradient of what was convolved.

    Args:
        d_y_nchw: The result's, dense but for the first dimension.
        kernels: The convolution.
        d_x_nchw: Where it goes; contiguous.
        add: Whether it is added to what is there.
    """
    n, c, *size = d_x_nchw.shape
    blocks, grid = _divided(n, c, size[0] * size[1])
    _backward[grid](
        d_y_nchw, kernels.weight_c1kk, d_x_nchw, d_y_nchw.stride(0), c, *size,
        *d_y_nchw.shape[2:], kernels.weight_c1kk.shape[2], kernels.stride, kernels.dilation, add,
        *blocks, launch.accumulator(d_y_nchw), num_warps=_NUM_WARPS,
    )  # fmt: skip


def weight_gradient(x_nchw: Tensor, d_y_nchw: Tensor, kernels: Kernels) -> Tensor:
    """The gradient of the weights.

    Args:
        x_nchw: What was convolved, dense but for the first dimension.
        d_y_nchw: The result's gradient, likewise.
        kernels: The convolution.

    Returns:
        [c, 1, k, k].
    """
    n, c, *size = d_y_nchw.shape
    weight_c1kk = kernels.weight_c1kk
    kernel = weight_c1kk.shape[2]
    count = n * size[0] * size[1]
    num_splits = triton.cdiv(count, _BLOCK_OF_WEIGHTS)
    partial = d_y_nchw.new_empty(
        (num_splits, c, kernel * kernel), dtype=launch.statistics_dtype(d_y_nchw)
    )
    # A warp of its own adds up without waiting for others.
    _backward_of_weight[num_splits, c](
        x_nchw, d_y_nchw, partial, x_nchw.stride(0), d_y_nchw.stride(0), c, count,
        *x_nchw.shape[2:], *size, kernel, kernels.stride, kernels.dilation, _BLOCK_OF_WEIGHTS,
        launch.accumulator(d_y_nchw), num_warps=1,
    )  # fmt: skip
    return partial.sum(dim=0).view_as(weight_c1kk).to(weight_c1kk.dtype)


def _divided(n: int, c: int, pixels: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Channels and pixels of a program, and how many programs there are along each dimension."""
    block = launch.power_of_two(pixels, 16, _BLOCK)
    channels = launch.power_of_two(c, 1, _BLOCK // block)
    return (channels, block), (triton.cdiv(pixels, block), triton.cdiv(c, channels), n)
