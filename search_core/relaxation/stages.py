"""A stage of many operations at once: depthwise and pointwise convolutions, normalisations.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from search_core.relaxation.adjacent import beside
from search_core.relaxation.arithmetic import arithmetic_for
from search_core.relaxation.chains import Stage
from search_core.relaxation.stacks import Stacks
from search_core.relaxation.statistics import (
    RunningStatistics,
    bring_together,
    known_statistics,
)
from search_core.relaxation.works import Convolution, Kernels, Normalisation, Product, Slide, Sums

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
    works: list[tuple[list[int], Convolution | Product]] = []
    for group in together:
        members = [index for number in group for index in slides[number]]
        made = [_slide(stacks, slides[number], depthwise) for number in group]
        works.append((members, Convolution(made, _pointwise_weights(stages, members))))
    for members in groups(
        {index: stage for index, stage in stages.items() if stage.depthwise is None},
        lambda index, stage: (stage.pointwise.out_channels, *stacks.shape(index)),
    ):
        product = Product(stacks.gather(members), _pointwise_weights(stages, members))
        works.append((members, product))
    if not works:
        return
    first = works[0][1]
    images = first.x_nkihw if isinstance(first, Product) else first.slides[0].part.stack_nkchw
    results = arithmetic_for(images).convolve_all([work for _, work in works])
    for (members, _), y_nkohw in zip(works, results, strict=True):
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
    found = []
    for group in groups(stages, lambda index, stage: (*norm_key(stage), *stacks.shape(index))):
        parts = groups(
            {index: following[index] for index in group},
            lambda _, stage: None if stage.depthwise is None else sliding(stage.depthwise),
        )
        members = [index for part in parts for index in part]
        found.append((parts, [stages[each].norm for each in members], stacks.gather(members)))
    results = normalised([Normalised(x_nkchw, norms) for _, norms, x_nkchw in found], statistics)
    for (parts, _, _), result_nkchw in zip(found, results, strict=True):
        if all(following[each].depthwise is not None for part in parts for each in part):
            # Depthwise convolutions read where it lies.
            stacks.put([index for part in parts for index in part], result_nkchw)
        else:
            stacks.put_apart(parts, result_nkchw)


class Normalised(NamedTuple):
    """What is to be normalised, operation by operation; rectified, or added up.

    Attributes:
        x_nkchw: The operations' tensors.
        norms: Their normalisations.
        multipliers_k: Of the operations, if they are added up.
        sums: Which of them are added up to each of some sums.
        base_ntchw: What the sums are added to.
    """

    x_nkchw: Tensor
    norms: Sequence[nn.BatchNorm2d]
    multipliers_k: Tensor | None = None
    sums: Sums | None = None
    base_ntchw: Tensor | None = None


def normalised(works: Sequence[Normalised], statistics: RunningStatistics) -> list[Tensor]:
    """Normalises what does not depend on each other.

    Args:
        works: What is to be normalised.
        statistics: Where normalisations leave theirs.

    Returns:
        Of each [n, k, c, h, w], or the sums [n, t, c, h, w].
    """
    if not works:
        return []
    arithmetic = arithmetic_for(works[0].x_nkchw)
    wanted = [_normalisation(each) for each in works]
    # All of them train, or none does: see `GroupedPlan.applies`.
    known = [
        each for each in map(known_statistics, (work.norms for work in works)) if each is not None
    ]
    if known:
        return [arithmetic.normalise_by(*each) for each in zip(known, wanted, strict=True)]
    for work in works:
        bring_together(work.norms)
    made = arithmetic.normalise_all(wanted)
    for work, (_, measured_2kc) in zip(works, made, strict=True):
        for norm, mean_c, variance_c in zip(work.norms, *measured_2kc, strict=True):
            statistics.record(norm, mean_c, variance_c)
    return [result for result, _ in made]


def _normalisation(work: Normalised) -> Normalisation:
    norms = work.norms
    scale_kc = shift_kc = None
    if norms[0].affine:
        scale_kc = beside([norm.weight for norm in norms])
        shift_kc = beside([norm.bias for norm in norms])
    return Normalisation(
        work.x_nkchw, scale_kc, shift_kc, norms[0].eps, work.sums is None, work.sums,
        work.multipliers_k, work.base_ntchw,
    )  # fmt: skip
