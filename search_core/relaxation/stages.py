"""A stage of many operations at once: depthwise and pointwise convolutions, normalisations.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from torch import Tensor, nn

from search_core.relaxation.adjacent import beside
from search_core.relaxation.arithmetic import Kernels, Slide, Sums, arithmetic_for
from search_core.relaxation.chains import Stage
from search_core.relaxation.stacks import Stacks
from search_core.relaxation.statistics import (
    RunningStatistics,
    bring_together,
    known_statistics,
)

MemberT = TypeVar("MemberT")


def groups(of: Mapping[int, MemberT], key: Callable[[int, MemberT], Hashable]) -> list[list[int]]:
    """Groups of indices, in the order of the first of each.

    Args:
        of: What has the indices.
        key: What those of a group have in common.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, member in of.items():
        groups.setdefault(key(index, member), []).append(index)
    return list(groups.values())


def sliding(convolution: nn.Conv2d) -> tuple[Any, ...]:
    """How a kernel slides, whatever its weights.

    Args:
        convolution: A depthwise one.
    """
    return (
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
    )


def norm_key(stage: Stage) -> tuple[Any, ...]:
    """What normalisations have in common that are computed together, besides their sizes.

    Args:
        stage: Ends in one.
    """
    return (stage.norm.eps, stage.norm.affine)


def convolve(stacks: Stacks, stages: Mapping[int, Stage]) -> None:
    """Replaces the tensors of operations by what both convolutions of a stage make of them.

    Args:
        stacks: The tensors.
        stages: By the operations' indices.
    """
    depthwise = {
        index: stage.depthwise for index, stage in stages.items() if stage.depthwise is not None
    }
    slides = groups(
        depthwise,
        lambda index, each: (
            *sliding(each), *stacks.shape(index), stages[index].pointwise.out_channels,
        ),
    )  # fmt: skip
    together = groups(
        dict(enumerate(slides)),
        lambda _, members: (
            *_slid(depthwise[members[0]], stacks.shape(members[0])),
            stages[members[0]].pointwise.out_channels,
        ),
    )
    results = []
    for group in together:
        members = [index for number in group for index in slides[number]]
        made = [_slide(stacks, slides[number], depthwise) for number in group]
        weight_koi = _pointwise_weights(stages, members)
        arithmetic = arithmetic_for(made[0].part.stack_nkchw)
        results.append((members, arithmetic.convolve(made, weight_koi)))
    for members in groups(
        {index: stage for index, stage in stages.items() if stage.depthwise is None},
        lambda index, stage: (stage.pointwise.out_channels, *stacks.shape(index)),
    ):
        x_nkihw = stacks.gather(members)
        weight_koi = _pointwise_weights(stages, members)
        results.append((members, arithmetic_for(x_nkihw).multiply(x_nkihw, weight_koi)))
    for members, y_nkohw in results:
        stacks.put(members, y_nkohw)


def _slide(stacks: Stacks, members: Sequence[int], depthwise: Mapping[int, nn.Conv2d]) -> Slide:
    first = depthwise[members[0]]
    weight_c1kk = beside([depthwise[each].weight for each in members]).flatten(0, 1)
    return Slide(stacks.repeated(members), Kernels(weight_c1kk, first.stride[0], first.dilation[0]))


def _slid(convolution: nn.Conv2d, shape: Sequence[int]) -> tuple[int, ...]:
    """Channels, height and width of what a convolution makes, padded to keep the size."""
    channels, *size = shape
    return (channels, *((each - 1) // convolution.stride[0] + 1 for each in size))


def _pointwise_weights(stages: Mapping[int, Stage], members: Sequence[int]) -> Tensor:
    return beside([stages[each].pointwise.weight for each in members]).flatten(2)


def normalise_and_rectify(
    stacks: Stacks,
    stages: Mapping[int, Stage],
    following: Mapping[int, Stage],
    statistics: RunningStatistics,
) -> None:
    """Replaces the tensors of operations by what a next stage reads.

    Args:
        stacks: The tensors.
        stages: The stages behind which they are, by the operations' indices.
        following: The next ones.
        statistics: Where normalisations leave theirs.
    """
    for group in groups(stages, lambda index, stage: (*norm_key(stage), *stacks.shape(index))):
        parts = groups(
            {index: following[index] for index in group},
            lambda _, stage: None if stage.depthwise is None else sliding(stage.depthwise),
        )
        members = [index for part in parts for index in part]
        norms = [stages[each].norm for each in members]
        result_nkchw = normalised(stacks.gather(members), norms, statistics)
        if all(following[each].depthwise is not None for each in members):
            stacks.put(members, result_nkchw)  # depthwise convolutions read where it lies
        else:
            stacks.put_apart(parts, result_nkchw)


def normalised(
    x_nkchw: Tensor,
    norms: Sequence[nn.BatchNorm2d],
    statistics: RunningStatistics,
    multipliers_k: Tensor | None = None,
    sums: Sums | None = None,
    base_ntchw: Tensor | None = None,
) -> Tensor:
    """Normalises each operation; rectified, or added up if there are multipliers.

    Args:
        x_nkchw: The operations' tensors.
        norms: Their normalisations.
        statistics: Where these leave theirs.
        multipliers_k: Of the operations.
        sums: Which of them are added up to each of some sums.
        base_ntchw: What the sums are added to.

    Returns:
        [n, k, c, h, w], or the sums [n, t, c, h, w].
    """
    scale_kc = shift_kc = None
    if norms[0].affine:
        scale_kc = beside([norm.weight for norm in norms])
        shift_kc = beside([norm.bias for norm in norms])
    arithmetic = arithmetic_for(x_nkchw)
    follows = _Follows(
        eps=norms[0].eps,
        rectify=sums is None,
        sums=sums,
        factor_k=multipliers_k,
        base_ntchw=base_ntchw,
    )
    known = known_statistics(norms)
    if known is not None:
        return arithmetic.normalise_by(known, x_nkchw, scale_kc, shift_kc, **follows)
    bring_together(norms)
    result, measured_2kc = arithmetic.normalise(x_nkchw, scale_kc, shift_kc, **follows)
    for norm, mean_c, variance_c in zip(norms, *measured_2kc, strict=True):
        statistics.record(norm, mean_c, variance_c)
    return result


class _Follows(TypedDict):
    """What `normalise` and `normalise_by` are told by name."""

    eps: float
    rectify: bool
    sums: Sums | None
    factor_k: Tensor | None
    base_ntchw: Tensor | None
