"""Separable convolutions of many operations at once, with their gradients.

What is between a depthwise and a pointwise convolution is not kept for the backward pass: it would
be a third of all memory, and to compute it again takes a fraction of what the gradients do.

Legend: n images, k operations, c channels of one of them, i channels that come in, o channels that
go out, h height, w width, r pixels of an image.
"""

from collections.abc import Collection, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from search_core.relaxation.fused import depthwise, launch, parts, pointwise, together
from search_core.relaxation.fused.streams import Task, at_once, in_turn
from search_core.relaxation.fused.together import Call
from search_core.relaxation.stacks import dense
from search_core.relaxation.works import Convolution, Kernels, Product, Slide


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
        x_nkihw = dense(x_nkihw)
        ctx.save_for_backward(weight_koi, x_nkihw if ctx.needs_input_grad[1] else None)
        return _multiplied(x_nkihw, weight_koi)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        weight_koi, x_nkihw = ctx.saved_tensors
        d_y_nkohw = dense(d_outputs[0])
        d_x_nkihw = d_weight_koi = None
        if ctx.needs_input_grad[0]:
            d_x_nkihw = _multiplied(d_y_nkohw, weight_koi.transpose(1, 2))
        if ctx.needs_input_grad[1]:
            partial_koi = pointwise.weight_gradient(x_nkihw.flatten(3), d_y_nkohw.flatten(3))
            d_weight_koi = parts.total(partial_koi).to(weight_koi.dtype)
        return d_x_nkihw, d_weight_koi


def _multiplied(x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
    y_nkor = pointwise.multiply(x_nkihw.flatten(3), weight_koi)
    return y_nkor.view(*y_nkor.shape[:3], *x_nkihw.shape[3:])


class _Read(NamedTuple):
    """What a slide reads, and how.

    Attributes:
        source: The index of a stack.
        first: The first operation of it that is read.
        count: How many are.
        stride: Of the output.
        dilation: Pixels between two weights of a kernel.
    """

    source: int
    first: int
    count: int
    stride: int
    dilation: int

    def of(self, stacks_nkchw: Sequence[Tensor]) -> Tensor:
        """The images that are read, [n, k * c, h, w]."""
        return stacks_nkchw[self.source].narrow(1, self.first, self.count).flatten(1, 2)

    def kernels(self, weight_c1kk: Tensor) -> Kernels:
        """The convolution."""
        return Kernels(weight_c1kk, self.stride, self.dilation)


class _Separable(torch.autograd.Function):
    """Of the sources, then of the depthwise weights; a source may be read by several slides."""

    @staticmethod
    def forward(ctx: Any, reads: tuple[_Read, ...], weight_koi: Tensor, *tensors: Tensor) -> Tensor:
        num_sources = len(tensors) - len(reads)
        sources_nkchw = [dense(each) for each in tensors[:num_sources]]
        weights_c1kk = tensors[num_sources:]
        between_nkihw, slides = _between(sources_nkchw, reads, weights_c1kk)
        at_once(slides)
        # What only weights' gradients need is not kept where nobody asks for one.
        needs_weight, *needs = ctx.needs_input_grad[1:]
        needs_weights = needs_weight or any(needs[num_sources:])
        ctx.save_for_backward(
            weight_koi,
            *(sources_nkchw if needs_weights else [None] * num_sources),
            *weights_c1kk,
        )
        ctx.settings = (reads, [each.shape for each in sources_nkchw])
        return _multiplied(between_nkihw, weight_koi)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        reads, shapes = ctx.settings
        weight_koi, *saved = ctx.saved_tensors
        sources_nkchw, weights_c1kk = saved[: len(shapes)], saved[len(shapes) :]
        needs_weight, *needs = ctx.needs_input_grad[1:]
        d_y_nkohw = dense(d_outputs[0])
        between_nkihw = None
        slides: list[Task[Any]] = []
        if needs_weight:
            between_nkihw, slides = _between(sources_nkchw, reads, weights_c1kk)
        back = partial(_multiplied, d_y_nkohw, weight_koi.transpose(1, 2))
        d_between_nkihw, *_ = at_once([Task(back, weight_koi.numel()), *slides])
        d_sources = [
            _room(d_y_nkohw, shape, {read for read in reads if read.source == source})
            if needs[source]
            else None
            for source, shape in enumerate(shapes)
        ]
        of_weights: list[Task[Any]] = []
        if between_nkihw is not None:
            of_weight = partial(
                pointwise.weight_gradient, between_nkihw.flatten(3), d_y_nkohw.flatten(3)
            )
            of_weights.append(Task(of_weight, weight_koi.numel()))
        of_sources: dict[tuple[int, int], list[Task[Any]]] = {}
        parts_nkihw = torch.split(d_between_nkihw, _lengths(weights_c1kk, shapes[0][2]), dim=1)
        for index, (read, weight_c1kk, part_nkihw) in enumerate(
            zip(reads, weights_c1kk, parts_nkihw, strict=True)
        ):
            part_nchw, kernels = part_nkihw.flatten(1, 2), read.kernels(weight_c1kk)
            cost = weight_c1kk.numel()
            if needs[read.source]:
                turns = of_sources.setdefault((read.source, read.first), [])
                d_part_nchw = read.of(d_sources)
                gradient = partial(
                    depthwise.input_gradient, part_nchw, kernels, d_part_nchw, add=bool(turns)
                )
                turns.append(Task(gradient, cost))
            if needs[len(shapes) + index]:
                of_taps = partial(
                    depthwise.weight_gradient, read.of(sources_nkchw), part_nchw, kernels
                )
                of_weights.append(Task(of_taps, cost))
        made = at_once([*of_weights, *map(in_turn, of_sources.values())])
        found = [each for each in made if each is not None]
        totals = iter(parts.totals(found))
        d_weight_koi, *d_weights_c1kk = (
            next(totals).view_as(weight).to(weight.dtype) if is_needed else None
            for weight, is_needed in zip(
                (weight_koi, *weights_c1kk), (needs_weight, *needs[len(shapes) :]), strict=True
            )
        )
        return None, d_weight_koi, *d_sources, *d_weights_c1kk


def _room(like: Tensor, shape: Sequence[int], reads: Collection[_Read]) -> Tensor:
    """Room for a stack's gradient, with zeros if there are operations that nobody reads."""
    known = {(read.first, read.count) for read in reads}
    is_whole = sum(count for _, count in known) == shape[1]
    return like.new_empty(shape) if is_whole else like.new_zeros(shape)


def _lengths(weights_c1kk: Sequence[Tensor], channels: int) -> list[int]:
    """How many operations each depthwise convolution is of."""
    return [len(each) // channels for each in weights_c1kk]


def _between(
    sources_nkchw: Sequence[Tensor], reads: Sequence[_Read], weights_c1kk: Sequence[Tensor]
) -> tuple[Tensor, list[Task[Any]]]:
    """Room for what the depthwise convolutions make, side by side, and what fills it."""
    first_nkchw, stride = sources_nkchw[reads[0].source], reads[0].stride
    size = [(each - 1) // stride + 1 for each in first_nkchw.shape[3:]]
    n, _, c = first_nkchw.shape[:3]
    lengths = _lengths(weights_c1kk, c)
    result_nkchw = first_nkchw.new_empty((n, sum(lengths), c, *size))
    tasks = []
    for read, weight_c1kk, part_nkchw in zip(
        reads, weights_c1kk, torch.split(result_nkchw, lengths, dim=1), strict=True
    ):
        images_nchw, kernels = read.of(sources_nkchw), read.kernels(weight_c1kk)
        fill = partial(depthwise.convolve, images_nchw, kernels, part_nkchw.flatten(1, 2))
        tasks.append(Task(fill, weight_c1kk.numel()))
    return result_nkchw, tasks


def _refuse_overlaps(slides: Sequence[Slide]) -> None:
    """Gradients of parts that overlap would be written over each other."""
    parts = {(id(part.stack_nkchw), part.first, part.length) for part, _ in slides}
    for (stack, first, length), (other, begin, _) in pairwise(sorted(parts)):
        if stack == other and begin < first + length:
            raise ValueError("slides read parts of a stack that overlap and are not the same")


def convolve(slides: Sequence[Slide], weight_koi: Tensor) -> Tensor:
    """Depthwise convolutions, side by side, each with a pointwise one of its own behind it.

    Args:
        slides: The depthwise ones, whose results have the same size and channels. Of a stack they
            read the same operations, or others.
        weight_koi: The weights of the pointwise ones.

    Returns:
        [n, k, o, h, w], of the images' type or autocast's.

    Raises:
        ValueError: Two slides read parts of a stack that overlap, and are not the same.
    """
    [result] = convolve_all([Convolution(slides, weight_koi)])
    return result


def multiply(x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
    """Pointwise convolutions.

    Args:
        x_nkihw: The operations' images side by side.
        weight_koi: Their weights.

    Returns:
        [n, k, o, h, w], of the images' type or autocast's.
    """
    [result] = convolve_all([Product(x_nkihw, weight_koi)])
    return result


def convolve_all(works: Sequence[Convolution | Product]) -> list[Tensor]:
    """Several of both, which a captured step may compute at the same time.

    Args:
        works: They are on the same device, and do not depend on each other.

    Returns:
        What `convolve` and `multiply` make of each.

    Raises:
        ValueError: See `convolve`.
    """
    with launch.device_of(works[0].weight_koi):
        return together.run(
            [
                _convolution(each) if isinstance(each, Convolution) else _product(each)
                for each in works
            ]
        )


def _convolution(work: Convolution) -> Call[Tensor]:
    slides, weight_koi = work
    _refuse_overlaps(slides)
    stacks = {id(each.part.stack_nkchw): each.part.stack_nkchw for each in slides}
    order = list(stacks)
    reads = tuple(
        _Read(
            order.index(id(part.stack_nkchw)),
            part.first,
            part.length,
            kernels.stride,
            kernels.dilation,
        )
        for part, kernels in slides
    )
    arguments = (
        reads,
        weight_koi,
        *(launch.cast(each) for each in stacks.values()),
        *(each.kernels.weight_c1kk.contiguous() for each in slides),
    )
    return Call(_Separable, arguments, lambda y_nkohw: y_nkohw)


def _product(work: Product) -> Call[Tensor]:
    x_nkihw, weight_koi = work
    return Call(_Pointwise, (launch.cast(x_nkihw), weight_koi), lambda y_nkohw: y_nkohw)
