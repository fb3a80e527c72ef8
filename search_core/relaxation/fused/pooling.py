"""Pools of images that keep their size at stride 1.

Legend: n images, c channels, h height, w width.
"""

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from search_core.relaxation.fused import launch

_BLOCK: Final = 256


@triton.jit
def _pool(
    x, y, chosen, x_stride, size,
    in_h: tl.constexpr, in_w: tl.constexpr, out_h: tl.constexpr, out_w: tl.constexpr,
    maximum: tl.constexpr, counts_padding: tl.constexpr, side: tl.constexpr, stride: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """A maximum, and which value of the window it is: of equal ones the first; or a mean."""
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < size
    plane = index // (out_h * out_w)
    top = index // out_w % out_h * stride - side // 2
    left = index % out_w * stride - side // 2
    source = x + n * x_stride + plane * (in_h * in_w)
    total = tl.zeros([block], dtype=acc)
    if maximum:
        total = total - float("inf")
    which = tl.zeros([block], dtype=tl.int32)
    count = tl.zeros([block], dtype=tl.int32)
    for tap in tl.static_range(side * side):
        h = top + tap // side
        w = left + tap % side
        known = inside & (h >= 0) & (h < in_h) & (w >= 0) & (w < in_w)
        value = tl.load(source + h * in_w + w, mask=known, other=0.0).to(acc)
        if maximum:
            is_new = known & ((value > total) | (value != value))
            total = tl.where(is_new, value, total)
            which = tl.where(is_new, tap, which)
        else:
            total += value
            count += known.to(tl.int32)
    if maximum:
        tl.store(chosen + n * size + index, which.to(tl.uint8), mask=inside)
    elif counts_padding:
        total = total / (side * side)
    else:
        total = total / tl.maximum(count, 1).to(acc)
    tl.store(y + n * size + index, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _pool_backward(
    d_y, d_x, chosen, d_y_stride, size,
    in_h: tl.constexpr, in_w: tl.constexpr, out_h: tl.constexpr, out_w: tl.constexpr,
    maximum: tl.constexpr, counts_padding: tl.constexpr, side: tl.constexpr, stride: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """What each value gets of the windows that it is in."""
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < size
    plane = index // (in_h * in_w)
    bottom = index // in_w % in_h + side // 2
    right = index % in_w + side // 2
    total = tl.zeros([block], dtype=acc)
    for tap in tl.static_range(side * side):
        h = bottom - tap // side
        w = right - tap % side
        known = inside & (h >= 0) & (w >= 0) & (h % stride == 0) & (w % stride == 0)
        h = h // stride
        w = w // stride
        known = known & (h < out_h) & (w < out_w)
        place = (plane * out_h + h) * out_w + w
        slope = tl.load(d_y + n * d_y_stride + place, mask=known, other=0.0).to(acc)
        if maximum:
            planes = size // (in_h * in_w)
            which = tl.load(chosen + n * (planes * out_h * out_w) + place, mask=known, other=255)
            slope = tl.where(which == tap, slope, 0.0)
        elif counts_padding:
            slope = slope / (side * side)
        else:
            top = h * stride - side // 2
            left = w * stride - side // 2
            rows = tl.minimum(top + side, in_h) - tl.maximum(top, 0)
            columns = tl.minimum(left + side, in_w) - tl.maximum(left, 0)
            slope = slope / tl.maximum(rows * columns, 1).to(acc)
        total += slope
    tl.store(d_x + n * size + index, total.to(d_x.dtype.element_ty), mask=inside)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_nchw: Tensor, maximum: bool, counts_padding: bool, side: int, stride: int
    ) -> Tensor:
        x_nchw = launch.dense(x_nchw)
        n, c, *size = x_nchw.shape
        shape = (n, c, *((each - 1) // stride + 1 for each in size))
        y_nchw = x_nchw.new_empty(shape)
        chosen_nchw = x_nchw.new_empty(shape, dtype=torch.uint8) if maximum else None
        values = y_nchw[0].numel()
        kind = (maximum, counts_padding, side, stride)
        _pool[triton.cdiv(values, _BLOCK), n](
            x_nchw, y_nchw, chosen_nchw, x_nchw.stride(0), values, *size, *shape[2:], *kind,
            _BLOCK, launch.accumulator(x_nchw),
        )  # fmt: skip
        ctx.save_for_backward(chosen_nchw)
        ctx.settings = (x_nchw.shape, kind)
        return y_nchw

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        (chosen_nchw,) = ctx.saved_tensors
        shape, kind = ctx.settings
        d_y_nchw = launch.dense(d_outputs[0])
        d_x_nchw = d_y_nchw.new_empty(shape)
        values = d_x_nchw[0].numel()
        _pool_backward[triton.cdiv(values, _BLOCK), len(d_x_nchw)](
            d_y_nchw, d_x_nchw, chosen_nchw, d_y_nchw.stride(0), values, *shape[2:],
            *d_y_nchw.shape[2:], *kind, _BLOCK, launch.accumulator(d_y_nchw),
        )  # fmt: skip
        return d_x_nchw, None, None, None, None


def pool(x_nchw: Tensor, layer: nn.MaxPool2d | nn.AvgPool2d) -> Tensor:
    """Pools images.

    Args:
        x_nchw: The images.
        layer: The pool; `pools.has_kernel` is true of it.

    Returns:
        [n, c, h, w], divided by the stride.
    """
    maximum = isinstance(layer, nn.MaxPool2d)
    counts_padding = not maximum and layer.count_include_pad
    with launch.device_of(x_nchw):
        result: Tensor = _Pool.apply(
            x_nchw, maximum, counts_padding, layer.kernel_size, layer.stride
        )
    return result
