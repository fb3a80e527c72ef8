"""Weighted sums of the same images, without putting these side by side first.

Legend: n images, c channels, h height, w width, k images that are summed, t sums of them.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.fused import launch, parts
from search_core.relaxation.stacks import dense
from search_core.relaxation.works import Part

_BLOCK: Final = 512


@triton.jit
def _mix(
    features, strides, weights, base, y, base_stride, size,
    num_features: tl.constexpr, num_sums: tl.constexpr, has_base: tl.constexpr,
    block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < size
    totals = ()
    for t in tl.static_range(num_sums):
        if has_base:
            total = tl.load(base + n * base_stride + t * size + index, mask=inside, other=0.0)
            totals = totals + (total.to(acc),)
        else:
            totals = totals + (tl.zeros([block], dtype=acc),)
    for k in tl.static_range(num_features):
        value = tl.load(features[k] + n * strides[k] + index, mask=inside, other=0.0).to(acc)
        sums = ()
        for t in tl.static_range(num_sums):
            weight = tl.load(weights + (t * num_features + k)).to(acc)
            sums = sums + (totals[t] + value * weight,)
        totals = sums
    for t in tl.static_range(num_sums):
        target = y + (n * num_sums + t) * size + index
        tl.store(target, totals[t].to(y.dtype.element_ty), mask=inside)


@triton.jit
def _part(
    d_y, weights, d_features, strides, d_y_stride, size,
    num_features: tl.constexpr, num_sums: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """The gradient of each of the images."""
    n = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < size
    slopes = ()
    for t in tl.static_range(num_sums):
        slope = tl.load(d_y + n * d_y_stride + t * size + index, mask=inside, other=0.0)
        slopes = slopes + (slope.to(acc),)
    for k in tl.static_range(num_features):
        total = tl.zeros([block], dtype=acc)
        for t in tl.static_range(num_sums):
            total += slopes[t] * tl.load(weights + (t * num_features + k)).to(acc)
        target = d_features[k] + n * strides[k] + index
        tl.store(target, total.to(d_features[k].dtype.element_ty), mask=inside)


@triton.jit
def _compare(
    features, strides, d_y, partial, d_y_stride, size,
    num_features: tl.constexpr, num_sums: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """The products of each image with each sum's gradient, added up over an image."""
    n = tl.program_id(0).to(tl.int64)
    totals = ()
    for _ in tl.static_range(num_features * num_sums):
        totals = totals + (tl.zeros([block], dtype=acc),)
    for start in range(tl.program_id(1) * block, size, tl.num_programs(1) * block):
        index = start + tl.arange(0, block)
        inside = index < size
        values = ()
        for k in tl.static_range(num_features):
            value = tl.load(features[k] + n * strides[k] + index, mask=inside, other=0.0)
            values = values + (value.to(acc),)
        sums = ()
        for t in tl.static_range(num_sums):
            slope = tl.load(d_y + n * d_y_stride + t * size + index, mask=inside, other=0.0).to(acc)
            for k in tl.static_range(num_features):
                sums = sums + (totals[t * num_features + k] + values[k] * slope,)
        totals = sums
    part = n * tl.num_programs(1) + tl.program_id(1)
    target = partial + part * (num_features * num_sums)
    for each in tl.static_range(num_features * num_sums):
        tl.store(target + each, tl.sum(totals[each], axis=0))


class _Mix(torch.autograd.Function):
    """Of the weights, the base, then of the stacks that the images are parts of."""

    @staticmethod
    def forward(
        ctx: Any,
        places: tuple[tuple[int, int], ...],
        weights_tk: Tensor,
        base_ntchw: Tensor | None,
        *stacks_nkchw: Tensor,
    ) -> Tensor:
        stacks_nkchw = tuple(map(dense, stacks_nkchw))
        features_nchw = _parts(stacks_nkchw, places)
        weights_tk = weights_tk.contiguous()
        n, *shape = features_nchw[0].shape
        base = None if base_ntchw is None else dense(base_ntchw)
        read = (*features_nchw, *(() if base is None else (base,)))
        dtype = reduce(torch.promote_types, [each.dtype for each in read])
        y_ntchw = features_nchw[0].new_empty((n, len(weights_tk), *shape), dtype=dtype)
        size = features_nchw[0][0].numel()
        _mix[triton.cdiv(size, _BLOCK), n](
            features_nchw, _strides(features_nchw), weights_tk, base, y_ntchw,
            0 if base is None else base.stride(0), size, len(features_nchw), len(weights_tk),
            base is not None, _BLOCK, launch.accumulator(features_nchw[0]),
        )  # fmt: skip
        needs_weights = ctx.needs_input_grad[1]
        ctx.save_for_backward(weights_tk, *(stacks_nkchw if needs_weights else ()))
        ctx.settings = (places, [(each.shape, each.dtype) for each in stacks_nkchw])
        return y_ntchw

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        weights_tk, *stacks_nkchw = ctx.saved_tensors
        places, likes = ctx.settings
        d_y_ntchw = dense(d_outputs[0])
        n, size = len(d_y_ntchw), d_y_ntchw[0, 0].numel()
        acc = launch.accumulator(d_y_ntchw)
        counts = (len(places), len(weights_tk))
        d_weights_tk = None
        if ctx.needs_input_grad[1]:
            features_nchw = _parts(stacks_nkchw, places)
            shares = max(1, min(triton.cdiv(size, _BLOCK), launch.PROGRAMS // n))
            partial = weights_tk.new_empty(
                (n * shares, *weights_tk.shape), dtype=launch.statistics_dtype(d_y_ntchw)
            )
            _compare[n, shares](
                features_nchw, _strides(features_nchw), d_y_ntchw, partial, d_y_ntchw.stride(0),
                size, *counts, _BLOCK, acc,
            )  # fmt: skip
            d_weights_tk = parts.total(partial).to(weights_tk.dtype)
        d_stacks_nkchw: tuple[Tensor | None, ...] = (None,) * len(likes)
        if any(ctx.needs_input_grad[3:]):
            made = tuple(
                # What nobody reads here gets nothing from here.
                (d_y_ntchw.new_empty if _is_whole(number, shape, places) else d_y_ntchw.new_zeros)(
                    shape, dtype=dtype
                )
                for number, (shape, dtype) in enumerate(likes)
            )
            d_features_nchw = _parts(made, places)
            _part[triton.cdiv(size, _BLOCK), n](
                d_y_ntchw, weights_tk, d_features_nchw, _strides(d_features_nchw),
                d_y_ntchw.stride(0), size, *counts, _BLOCK, acc,
            )  # fmt: skip
            d_stacks_nkchw = made
        d_base = d_outputs[0] if ctx.needs_input_grad[2] else None
        return None, d_weights_tk, d_base, *d_stacks_nkchw


def _parts(stacks_nkchw: Sequence[Tensor], places: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    return tuple(stacks_nkchw[number][:, position] for number, position in places)


def _is_whole(number: int, shape: Sequence[int], places: Sequence[tuple[int, int]]) -> bool:
    return sum(each[0] == number for each in places) == shape[1]


def _strides(features_nchw: Sequence[Tensor]) -> tuple[int, ...]:
    return tuple(each.stride(0) for each in features_nchw)


def mix(features: Sequence[Part], weights_tk: Tensor, base_ntchw: Tensor | None = None) -> Tensor:
    """Weighted sums of the same images.

    Args:
        features: The images, one of each part, all of one shape.
        weights_tk: Their weights in each sum.
        base_ntchw: What the sums are added to.

    Returns:
        [n, t, c, h, w].
    """
    stacks: list[Tensor] = []
    places: list[tuple[int, int]] = []
    for stack_nkchw, position, _ in features:
        # One that comes twice is given twice: its gradients are added up outside.
        number = next(
            (
                index
                for index, each in enumerate(stacks)
                if each is stack_nkchw and (index, position) not in places
            ),
            len(stacks),
        )
        if number == len(stacks):
            stacks.append(stack_nkchw)
        places.append((number, position))
    with launch.device_of(weights_tk):
        result: Tensor = _Mix.apply(tuple(places), weights_tk, base_ntchw, *stacks)
    return result
