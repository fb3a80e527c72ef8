"""Separable convolutions of many operations at once, with their gradients.

What is between a depthwise and a pointwise convolution is not kept for the backward pass: it would
be a third of all memory, and to compute it again takes a fraction of what the gradients do.

Legend: n images, k operations, c channels of one of them, i channels that come in, o channels that
go out, h height, w width, r pixels of an image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search_core.relaxation.arithmetic import Kernels, Slide
from search_core.relaxation.fused import depthwise, launch, pointwise


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nkir: Tensor, weight_koi: Tensor) -> Tensor:
        x_nkir = launch.dense(x_nkir)
        ctx.save_for_backward(weight_koi, x_nkir if ctx.needs_input_grad[1] else None)
        return pointwise.multiply(x_nkir, weight_koi)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        weight_koi, x_nkir = ctx.saved_tensors
        d_y_nkor = launch.dense(d_outputs[0])
        d_x_nkir = d_weight_koi = None
        if ctx.needs_input_grad[0]:
            d_x_nkir = pointwise.multiply(d_y_nkor, weight_koi.transpose(1, 2))
        if ctx.needs_input_grad[1]:
            d_weight_koi = pointwise.weight_gradient(x_nkir, d_y_nkor).to(weight_koi.dtype)
        return d_x_nkir, d_weight_koi


class _Separable(torch.autograd.Function):
    """Of the sources, then of the depthwise weights; a source may be read by several slides."""

    @staticmethod
    def forward(
        ctx: Any,
        reads: tuple[int, ...],
        slides: tuple[tuple[int, int], ...],
        weight_koi: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        num_sources = len(tensors) - len(reads)
        sources_nkchw = [launch.dense(each) for each in tensors[:num_sources]]
        kernels = _kernels(tensors[num_sources:], slides)
        between_nkihw = _between(sources_nkchw, reads, kernels)
        # What only weights' gradients need is not kept where nobody asks for one.
        needs_weight, *needs = ctx.needs_input_grad[2:]
        needs_weights = needs_weight or any(needs[num_sources:])
        ctx.save_for_backward(
            weight_koi,
            *(sources_nkchw if needs_weights else [None] * num_sources),
            *tensors[num_sources:],
        )
        ctx.settings = (reads, slides, [each.shape for each in sources_nkchw])
        y_nkor = pointwise.multiply(between_nkihw.flatten(3), weight_koi)
        return y_nkor.view(*y_nkor.shape[:3], *between_nkihw.shape[3:])

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        reads, slides, shapes = ctx.settings
        weight_koi, *saved = ctx.saved_tensors
        sources_nkchw, kernels = saved[: len(shapes)], _kernels(saved[len(shapes) :], slides)
        needs_weight, *needs = ctx.needs_input_grad[2:]
        d_y_nkohw = launch.dense(d_outputs[0])
        d_y_nkor = d_y_nkohw.flatten(3)
        d_weight_koi = None
        if needs_weight:
            between_nkihw = _between(sources_nkchw, reads, kernels)
            d_weight_koi = pointwise.weight_gradient(between_nkihw.flatten(3), d_y_nkor)
            d_weight_koi = d_weight_koi.to(weight_koi.dtype)
            del between_nkihw
        d_between_nkir = pointwise.multiply(d_y_nkor, weight_koi.transpose(1, 2))
        d_between_nkihw = d_between_nkir.view(*d_between_nkir.shape[:3], *d_y_nkohw.shape[3:])
        d_sources: list[Tensor | None] = [None] * len(shapes)
        d_kernels: list[Tensor | None] = []
        parts_nkihw = torch.split(d_between_nkihw, _lengths(kernels, shapes[0][2]), dim=1)
        for index, (read, each, part_nkihw) in enumerate(
            zip(reads, kernels, parts_nkihw, strict=True)
        ):
            part_nchw = part_nkihw.flatten(1, 2)
            if needs[read]:
                known = d_sources[read]
                d_source = part_nchw.new_empty(shapes[read]) if known is None else known
                depthwise.input_gradient(
                    part_nchw, each, d_source.flatten(1, 2), add=known is not None
                )
                d_sources[read] = d_source
            d_kernels.append(
                depthwise.weight_gradient(sources_nkchw[read].flatten(1, 2), part_nchw, each)
                if needs[len(shapes) + index]
                else None
            )
        return None, None, d_weight_koi, *d_sources, *d_kernels


def _kernels(weights: Sequence[Tensor], slides: Sequence[tuple[int, int]]) -> list[Kernels]:
    return [Kernels(weight, *slide) for weight, slide in zip(weights, slides, strict=True)]


def _lengths(kernels: Sequence[Kernels], channels: int) -> list[int]:
    """How many operations each depthwise convolution is of."""
    return [len(each.weight_c1kk) // channels for each in kernels]


def _between(
    sources_nkchw: Sequence[Tensor], reads: Sequence[int], kernels: Sequence[Kernels]
) -> Tensor:
    """What the depthwise convolutions make, side by side."""
    first_nkchw, stride = sources_nkchw[reads[0]], kernels[0].stride
    size = [(each - 1) // stride + 1 for each in first_nkchw.shape[3:]]
    n, _, c = first_nkchw.shape[:3]
    lengths = _lengths(kernels, c)
    result_nkchw = first_nkchw.new_empty((n, sum(lengths), c, *size))
    for read, each, part_nkchw in zip(
        reads, kernels, torch.split(result_nkchw, lengths, dim=1), strict=True
    ):
        depthwise.convolve(sources_nkchw[read].flatten(1, 2), each, part_nkchw.flatten(1, 2))
    return result_nkchw


def convolve(slides: Sequence[Slide], weight_koi: Tensor) -> Tensor:
    """Depthwise convolutions, side by side, each with a pointwise one of its own behind it.

    Args:
        slides: The depthwise ones, whose results have the same size and channels.
        weight_koi: The weights of the pointwise ones.

    Returns:
        [n, k, o, h, w], of the images' type or autocast's.
    """
    sources = {id(each.x_nkchw): each.x_nkchw for each in slides}
    order = list(sources)
    with launch.device_of(weight_koi):
        result: Tensor = _Separable.apply(
            tuple(order.index(id(each.x_nkchw)) for each in slides),
            tuple((each.kernels.stride, each.kernels.dilation) for each in slides),
            weight_koi,
            *(launch.cast(each) for each in sources.values()),
            *(each.kernels.weight_c1kk.contiguous() for each in slides),
        )
    return result


def multiply(x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
    """Pointwise convolutions.

    Args:
        x_nkihw: The operations' images side by side.
        weight_koi: Their weights.

    Returns:
        [n, k, o, h, w], of the images' type or autocast's.
    """
    n, k, _, *size = x_nkihw.shape
    with launch.device_of(x_nkihw):
        result: Tensor = _Pointwise.apply(launch.cast(x_nkihw).flatten(3), weight_koi)
    return result.view(n, k, -1, *size)
