"""What operations read of a state, in one pass over it: rectified, and pooled.

Pools are of images that keep their size at stride 1.

Legend: n images, c channels, h height, w width, p pools.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from search_core.relaxation.fused import launch, together
from search_core.relaxation.fused.together import Call
from search_core.relaxation.stacks import dense
from search_core.relaxation.works import Reading

_BLOCK: Final = 256

_MAXIMUM: Final = 0
_AVERAGE: Final = 1
_INSIDE_AVERAGE: Final = 2
_BITS: Final = 2
"""Of a kind, all kinds of a kernel being one number."""


@triton.jit
def _read(
    x, rectified, pooled, chosen, x_stride,
    planes: tl.constexpr, in_h: tl.constexpr, in_w: tl.constexpr, out_h: tl.constexpr,
    out_w: tl.constexpr, rectifies: tl.constexpr, pools: tl.constexpr, kinds: tl.constexpr,
    side: tl.constexpr, stride: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """Rectified values, and pools: of a maximum the first of equal values of a window is noted."""
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    in_size: tl.constexpr = planes * in_h * in_w
    out_size: tl.constexpr = planes * out_h * out_w
    if rectifies:
        is_in = index < in_size
        value = tl.load(x + n * x_stride + index, mask=is_in, other=0.0)
        value = tl.maximum(value.to(acc), 0.0, propagate_nan=tl.PropagateNan.ALL)
        target = rectified + n * in_size + index
        tl.store(target, value.to(rectified.dtype.element_ty), mask=is_in)
    if pools > 0:
        inside = index < out_size
        plane = index // (out_h * out_w)
        top = index // out_w % out_h * stride - side // 2
        left = index % out_w * stride - side // 2
        source = x + n * x_stride + plane * (in_h * in_w)
        total = tl.zeros([block], dtype=acc)
        most = total - float("inf")
        which = tl.zeros([block], dtype=tl.int32)
        count = tl.zeros([block], dtype=tl.int32)
        for tap in tl.static_range(side * side):
            h = top + tap // side
            w = left + tap % side
            known = inside & (h >= 0) & (h < in_h) & (w >= 0) & (w < in_w)
            value = tl.load(source + h * in_w + w, mask=known, other=0.0).to(acc)
            is_new = known & ((value > most) | (value != value))
            most = tl.where(is_new, value, most)
            which = tl.where(is_new, tap, which)
            total += value
            count += known.to(tl.int32)
        for number in tl.static_range(pools):
            target = pooled + (n * pools + number) * out_size + index
            if (kinds >> (2 * number)) & 3 == 0:
                if chosen is not None:
                    tl.store(chosen + n * out_size + index, which.to(tl.uint8), mask=inside)
                tl.store(target, most.to(pooled.dtype.element_ty), mask=inside)
            elif (kinds >> (2 * number)) & 3 == 1:
                mean = total / (side * side)
                tl.store(target, mean.to(pooled.dtype.element_ty), mask=inside)
            else:
                mean = total / tl.maximum(count, 1).to(acc)
                tl.store(target, mean.to(pooled.dtype.element_ty), mask=inside)


@triton.jit
def _read_backward(
    d_x, d_same, rectified, d_rectified, chosen, d_pooled,
    d_same_stride, d_rectified_stride, d_pooled_stride,
    planes: tl.constexpr, in_h: tl.constexpr, in_w: tl.constexpr, out_h: tl.constexpr,
    out_w: tl.constexpr, has_same: tl.constexpr, rectifies: tl.constexpr, pools: tl.constexpr,
    kinds: tl.constexpr, side: tl.constexpr, stride: tl.constexpr, block: tl.constexpr,
    acc: tl.constexpr,
):  # fmt: skip
    """What each value gets of all that has been made of it."""
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    in_size: tl.constexpr = planes * in_h * in_w
    out_size: tl.constexpr = planes * out_h * out_w
    inside = index < in_size
    total = tl.zeros([block], dtype=acc)
    if has_same:
        total += tl.load(d_same + n * d_same_stride + index, mask=inside, other=0.0).to(acc)
    if rectifies:
        slope = tl.load(d_rectified + n * d_rectified_stride + index, mask=inside, other=0.0)
        result = tl.load(rectified + n * in_size + index, mask=inside, other=0.0).to(acc)
        total += tl.where(result > 0.0, slope.to(acc), 0.0)
    if pools > 0:
        plane = index // (in_h * in_w)
        bottom = index // in_w % in_h + side // 2
        right = index % in_w + side // 2
        for tap in tl.static_range(side * side):
            h = bottom - tap // side
            w = right - tap % side
            known = inside & (h >= 0) & (w >= 0) & (h % stride == 0) & (w % stride == 0)
            h = h // stride
            w = w // stride
            known = known & (h < out_h) & (w < out_w)
            place = (plane * out_h + h) * out_w + w
            for number in tl.static_range(pools):
                source = d_pooled + n * d_pooled_stride + number * out_size + place
                slope = tl.load(source, mask=known, other=0.0).to(acc)
                if (kinds >> (2 * number)) & 3 == 0:
                    which = tl.load(chosen + n * out_size + place, mask=known, other=255)
                    total += tl.where(which == tap, slope, 0.0)
                elif (kinds >> (2 * number)) & 3 == 1:
                    total += slope / (side * side)
                else:
                    top = h * stride - side // 2
                    left = w * stride - side // 2
                    rows = tl.minimum(top + side, in_h) - tl.maximum(top, 0)
                    columns = tl.minimum(left + side, in_w) - tl.maximum(left, 0)
                    total += slope / tl.maximum(rows * columns, 1).to(acc)
    tl.store(d_x + n * in_size + index, total.to(d_x.dtype.element_ty), mask=inside)


class _Read(torch.autograd.Function):
    """The images, then what is made of them. Who else reads the images takes those given back.

    So the gradients of all readers come together in one place.
    """

    @staticmethod
    def forward(
        ctx: Any, x_nchw: Tensor, rectifies: bool, kinds: tuple[int, ...], side: int, stride: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        same_nchw = x_nchw.detach()
        x_nchw = dense(x_nchw)
        n, c, *size = x_nchw.shape
        out_size = [(each - 1) // stride + 1 for each in size]
        rectified = x_nchw.new_empty(x_nchw.shape) if rectifies else None
        pooled = x_nchw.new_empty((n, len(kinds), c, *out_size)) if kinds else None
        chosen = None
        if _MAXIMUM in kinds and ctx.needs_input_grad[0]:
            chosen = x_nchw.new_empty((n, c, *out_size), dtype=torch.uint8)
        ctx.settings = (c, *size, *out_size), (len(kinds), _number(kinds), side, stride)
        values = (rectified if rectified is not None else x_nchw[:, :, ::stride, ::stride])[0]
        _read[triton.cdiv(values.numel(), _BLOCK), n](
            x_nchw, rectified, pooled, chosen, x_nchw.stride(0), *ctx.settings[0], rectifies,
            *ctx.settings[1], _BLOCK, launch.accumulator(x_nchw),
        )  # fmt: skip
        ctx.save_for_backward(rectified, chosen)
        ctx.set_materialize_grads(False)
        return same_nchw, rectified, pooled

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        rectified, chosen = ctx.saved_tensors
        sizes, (pools, *window) = ctx.settings
        d_same, d_rectified, d_pooled = (
            None if each is None else dense(each) for each in d_outputs
        )
        if d_rectified is None and d_pooled is None:
            return d_same, None, None, None, None
        known = next(each for each in (d_rectified, d_pooled) if each is not None)
        d_x = known.new_empty((len(known), *sizes[:3]))
        _read_backward[triton.cdiv(d_x[0].numel(), _BLOCK), len(d_x)](
            d_x, d_same, rectified, d_rectified, chosen, d_pooled,
            *(0 if each is None else each.stride(0) for each in (d_same, d_rectified, d_pooled)),
            *sizes, d_same is not None, d_rectified is not None,
            0 if d_pooled is None else pools, *window, _BLOCK, launch.accumulator(d_x),
        )  # fmt: skip
        return d_x, None, None, None, None


def _number(kinds: Sequence[int]) -> int:
    return sum(kind << (_BITS * position) for position, kind in enumerate(kinds))


def _kind(pool: nn.MaxPool2d | nn.AvgPool2d) -> int:
    if isinstance(pool, nn.MaxPool2d):
        return _MAXIMUM
    return _AVERAGE if pool.count_include_pad else _INSIDE_AVERAGE


def read(
    x_nchw: Tensor, *, rectify: bool, pools: Sequence[nn.MaxPool2d | nn.AvgPool2d] = ()
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What operations read of images.

    Args:
        x_nchw: The images.
        rectify: Whether some read them rectified.
        pools: With the same windows; `pools.has_kernel` is true of each, and none comes twice.

    Returns:
        The images themselves, to be used in place of those given; rectified; and pooled,
        [n, p, c, h, w], with the sides divided by the stride.
    """
    [result] = read_all([Reading(x_nchw, rectify, pools)])
    return result


def read_all(works: Sequence[Reading]) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
    """Reads several, which a captured step may do at the same time.

    Args:
        works: They are on the same device, and do not depend on each other.

    Returns:
        What `read` makes of each.
    """
    calls: list[Call[tuple[Tensor, Tensor | None, Tensor | None]]] = []
    for x_nchw, rectify, pools in works:
        side, stride = (pools[0].kernel_size, pools[0].stride) if pools else (1, 1)
        arguments = (x_nchw, rectify, tuple(map(_kind, pools)), side, stride)
        calls.append(Call(_Read, arguments, lambda made: made))
    with launch.device_of(works[0].x_nchw):
        return together.run(calls)
