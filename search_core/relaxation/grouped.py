"""A sum of many operations in few large kernels, for devices that wait for launches.

The stages of all operations are counted from their ends, and those as far from it are computed
together: depthwise convolutions of the same kernel, stride and dilation as one over the channels of
all, pointwise ones of the same channels as one batch of matrix products, normalisations as one over
the channels of all. A multiplier is a factor of the last normalisation's scale and shift, so that
what remains of the weighted sum is a plain one.

The modules' own parameters are put side by side anew in each pass, so that autocast and checkpoints
are those of the plain form. What a plan consists of is `arithmetic`'s: kernels of our own on a GPU,
and elsewhere PyTorch's operations, of which there are second derivatives too.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, r values of an image.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from search_core.relaxation import chains
from search_core.relaxation.arithmetic import Kernels, Slide, arithmetic_for
from search_core.relaxation.chains import Chain, Stage
from search_core.relaxation.plans import Term
from search_core.relaxation.sharing import Shared
from search_core.relaxation.stacks import Stacks
from search_core.relaxation.statistics import RunningStatistics


class GroupedPlan:
    """Computes the states that terms add up to, as `Plan` does.

    Args:
        terms: The terms. Those of a target are added up in any order.
    """

    layout = torch.contiguous_format
    """In which the channels of several operations lie side by side without being moved."""
    suits_unrelated = False
    """What is read would have to be moved first, to lie side by side."""

    def __init__(self, terms: Sequence[Term]) -> None:
        planned = [(term, chains.chain_of(term.operation)) for term in terms]
        self._targets = list(dict.fromkeys(term.target for term in terms))
        self._features = [each for each in planned if not each[1].stages]
        # Alike ones side by side, so that what one group computes is as it is the next one's input.
        self._chains = sorted(
            (each for each in planned if each[1].stages), key=lambda each: _likeness(each[1])
        )
        self._norms = [
            module
            for term in terms
            for module in term.operation.modules()
            if isinstance(module, nn.BatchNorm2d)
        ]
        self._indices: dict[tuple[int, ...], Tensor] = {}

    @property
    def suits_single(self) -> bool:
        """One operation gains where all of it is computed here; what is only called does not."""
        return not self._features

    @property
    def applies(self) -> bool:
        """Whether the operations are in a state that a plan knows; else they are called plainly."""
        return all(norm.training and norm.momentum is not None for norm in self._norms)

    def __call__(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> None:
        """Adds the targets to the states.

        Args:
            shared: Knows the sources, contiguous, and gets to know the targets.
            multipliers_k: By the terms' indices.
            statistics: Where normalisations leave theirs.
        """
        sums: dict[Hashable, Tensor] = {}
        for target, part_nchw in (
            *self._sums_of_features(shared, multipliers_k),
            *self._sums_of_chains(shared, multipliers_k, statistics),
        ):
            sums[target] = sums[target] + part_nchw if target in sums else part_nchw
        for target in self._targets:
            shared.add(target, sums[target])

    def _sums_of_features(
        self, shared: Shared, multipliers_k: Tensor
    ) -> Iterator[tuple[Hashable, Tensor]]:
        """By target: one product with the multipliers, which reads each feature once."""
        terms = dict(enumerate(self._features))
        called = [_called(shared, *each) for each in self._features]
        for members in _groups(terms, lambda _, term: term[0].target):
            stacked_nkchw = torch.stack([called[each] for each in members], dim=1)
            weights_k = self._chosen(multipliers_k, [terms[each][0] for each in members])
            sum_nr = torch.matmul(weights_k.to(stacked_nkchw.dtype), stacked_nkchw.flatten(2))
            yield terms[members[0]][0].target, sum_nr.view(-1, *stacked_nkchw.shape[2:])

    def _sums_of_chains(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> Iterator[tuple[Hashable, Tensor]]:
        stacks = Stacks([_called(shared, *each) for each in self._chains])
        most = max((len(chain.stages) for _, chain in self._chains), default=0)
        for left in range(most, 0, -1):
            stages = {
                index: chain.stages[-left]
                for index, (_, chain) in enumerate(self._chains)
                if len(chain.stages) >= left
            }
            _convolve(stacks, stages)
            if left > 1:
                following = {index: self._chains[index][1].stages[1 - left] for index in stages}
                _normalise_and_rectify(stacks, stages, following, statistics)
        ends = {index: chain.stages[-1] for index, (_, chain) in enumerate(self._chains)}
        for members in _groups(
            ends, lambda index, stage: (self._chains[index][0].target, *_norm_key(stage))
        ):
            terms = [self._chains[each][0] for each in members]
            sum_nchw = _normalised(
                stacks.gather(members),
                [ends[each].norm for each in members],
                statistics,
                multipliers_k=self._chosen(multipliers_k, terms),
            )
            yield terms[0].target, sum_nchw

    def _chosen(self, multipliers_k: Tensor, terms: Sequence[Term]) -> Tensor:
        """The terms' multipliers. Their indices are brought to the device once, and stay there."""
        key = tuple(term.index for term in terms)
        known = self._indices.get(key)
        if known is None or known.device != multipliers_k.device:
            known = self._indices[key] = torch.tensor(key, device=multipliers_k.device)
        return multipliers_k.index_select(0, known)


def _convolve(stacks: Stacks, stages: Mapping[int, Stage]) -> None:
    """Both convolutions of stages."""
    depthwise = {
        index: stage.depthwise for index, stage in stages.items() if stage.depthwise is not None
    }
    slides = _groups(
        depthwise,
        lambda index, each: (
            *_sliding(each), *stacks.shape(index), stages[index].pointwise.out_channels,
        ),
    )  # fmt: skip
    together = _groups(
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
        arithmetic = arithmetic_for(made[0].x_nkchw)
        results.append((members, arithmetic.convolve(made, weight_koi)))
    for members in _groups(
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
    weight = torch.cat([depthwise[each].weight for each in members])
    return Slide(stacks.gather(members), Kernels(weight, first.stride[0], first.dilation[0]))


def _slid(convolution: nn.Conv2d, shape: Sequence[int]) -> tuple[int, ...]:
    """Channels, height and width of what a convolution makes, padded to keep the size."""
    channels, *size = shape
    return (channels, *((each - 1) // convolution.stride[0] + 1 for each in size))


def _pointwise_weights(stages: Mapping[int, Stage], members: Sequence[int]) -> Tensor:
    return torch.stack([stages[each].pointwise.weight.flatten(1) for each in members])


def _normalise_and_rectify(
    stacks: Stacks,
    stages: Mapping[int, Stage],
    following: Mapping[int, Stage],
    statistics: RunningStatistics,
) -> None:
    for group in _groups(stages, lambda index, stage: (*_norm_key(stage), *stacks.shape(index))):
        parts = _groups(
            {index: following[index] for index in group},
            lambda _, stage: None if stage.depthwise is None else _sliding(stage.depthwise),
        )
        members = [index for part in parts for index in part]
        norms = [stages[each].norm for each in members]
        stacks.put_apart(parts, _normalised(stacks.gather(members), norms, statistics))


def _normalised(
    x_nkchw: Tensor,
    norms: Sequence[nn.BatchNorm2d],
    statistics: RunningStatistics,
    multipliers_k: Tensor | None = None,
) -> Tensor:
    """Normalises each operation by its norm; rectified, or added up if there are multipliers."""
    scale_kc = shift_kc = None
    if norms[0].affine:
        scale_kc = torch.stack([norm.weight for norm in norms])
        shift_kc = torch.stack([norm.bias for norm in norms])
    if multipliers_k is not None:
        factor_kc = multipliers_k[:, None].expand(-1, x_nkchw.shape[2])
        scale_kc = factor_kc if scale_kc is None else factor_kc * scale_kc
        shift_kc = None if shift_kc is None else factor_kc * shift_kc
    result, measured_2kc = arithmetic_for(x_nkchw).normalise(
        x_nkchw,
        scale_kc,
        shift_kc,
        eps=norms[0].eps,
        rectify=multipliers_k is None,
        add_up=multipliers_k is not None,
    )
    for norm, mean_c, variance_c in zip(norms, *measured_2kc, strict=True):
        statistics.record(norm, mean_c, variance_c)
    return result


def _called(shared: Shared, term: Term, chain: Chain) -> Tensor:
    x_nchw = shared.get(term.source, chain.shared)
    for call in chain.calls:
        x_nchw = call(x_nchw)
    return x_nchw


MemberT = TypeVar("MemberT")


def _groups(of: Mapping[int, MemberT], key: Callable[[int, MemberT], Hashable]) -> list[list[int]]:
    """The indices by key, in the order of the first of each."""
    groups: dict[Hashable, list[int]] = {}
    for index, member in of.items():
        groups.setdefault(key(index, member), []).append(index)
    return list(groups.values())


def _sliding(convolution: nn.Conv2d) -> tuple[Any, ...]:
    """How a kernel slides, whatever its weights."""
    return (
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
    )


def _norm_key(stage: Stage) -> tuple[Any, ...]:
    return (stage.norm.eps, stage.norm.affine)


def _likeness(chain: Chain) -> tuple[Any, ...]:
    """Sorts operations by their last stages, then by those before."""
    return tuple(
        (
            () if stage.depthwise is None else _sliding(stage.depthwise),
            stage.pointwise.in_channels,
            stage.pointwise.out_channels,
            *_norm_key(stage),
        )
        for stage in reversed(chain.stages)
    )
