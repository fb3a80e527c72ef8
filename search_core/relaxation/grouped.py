"""A sum of many operations in few large kernels, for devices that wait for launches.

The stages of all operations are counted from their ends, and those as far from it are computed
together: depthwise convolutions of the same kernel, stride and dilation as one over the channels of
all, pointwise ones of the same channels as one batch of matrix products, normalisations as one over
the channels of all. A multiplier is a factor of the last normalisation's scale and shift, so that
what remains of the weighted sum is a plain one.

The modules' own parameters are put side by side (`adjacent`), so that autocast and checkpoints are
those of the plain form. What a plan consists of is `arithmetic`'s: kernels of our own on a GPU,
and elsewhere PyTorch's operations, of which there are second derivatives too.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from search_core.relaxation import chains
from search_core.relaxation.adjacent import beside
from search_core.relaxation.arithmetic import Kernels, Slide, Sums, arithmetic_for
from search_core.relaxation.chains import Chain, Stage
from search_core.relaxation.plans import Term
from search_core.relaxation.sharing import Shared, Targets
from search_core.relaxation.stacks import Stacks
from search_core.relaxation.statistics import RunningStatistics, known_statistics


class GroupedPlan:
    """Adds terms to the states that are sums of them.

    A state that others add to as well is complete when all of their plans have been called.

    Args:
        terms: The terms. Those of a target are added up in any order.
    """

    layout = torch.contiguous_format
    """In which the channels of several operations lie side by side without being moved."""
    suits_unrelated = False
    """What is read would have to be moved first, to lie side by side."""
    by_source = True
    """What reads a state is computed together, whatever it adds to: the state is read once."""
    evaluates = True
    """Evaluation waits for launches as training does."""

    def __init__(self, terms: Sequence[Term]) -> None:
        planned = [(term, chains.chain_of(term.operation)) for term in terms]
        self._targets = list(dict.fromkeys(term.target for term in terms))
        self._sources = list(dict.fromkeys(term.source for term in terms))
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
        self._indices: Tensor | None = None

    @property
    def suits_single(self) -> bool:
        """One operation gains where all of it is computed here; what is only called does not."""
        return not self._features

    @property
    def applies(self) -> bool:
        """Whether the operations are in a state that a plan knows; else they are called plainly."""
        if all(norm.training and norm.momentum is not None for norm in self._norms):
            return True
        return not torch.is_grad_enabled() and not any(
            norm.training or norm.running_mean is None for norm in self._norms
        )

    def __call__(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> None:
        """Adds to the targets.

        Args:
            shared: Knows the sources, contiguous, and what the targets are so far.
            multipliers_k: By the terms' indices.
            statistics: Where normalisations leave theirs.
        """
        for source in self._sources:
            shared.state(source)  # One that others are summed up with is taken out of there first.
        sums = shared.take(self._targets)
        of_features_k, of_chains_k = torch.split(
            multipliers_k.index_select(0, self._order(multipliers_k.device)),
            [len(self._features), len(self._chains)],
        )
        self._add_features(sums, shared, of_features_k)
        self._add_chains(sums, shared, of_chains_k, statistics)
        shared.leave(sums)

    def _add_features(
        self, sums: dict[Targets, Tensor], shared: Shared, multipliers_k: Tensor
    ) -> None:
        """One product with the multipliers, which reads each feature once for all targets."""
        called = [_called(shared, *each) for each in self._features]
        uses: dict[tuple[int, int], list[int]] = {}
        seen: Counter[tuple[int, Hashable]] = Counter()
        for index, (term, _) in enumerate(self._features):
            use = (id(called[index]), term.target)
            uses.setdefault((use[0], seen[use]), []).append(index)
            seen[use] += 1
        alike: dict[tuple[Targets, torch.Size], list[list[int]]] = {}
        for indices in uses.values():
            targets = tuple(self._features[index][0].target for index in indices)
            alike.setdefault((targets, called[indices[0]].shape), []).append(indices)
        for (targets, _), features in alike.items():
            order = [indices[number] for number in range(len(targets)) for indices in features]
            x_nchw = [called[indices[0]] for indices in features]
            weights_tk = _chosen(multipliers_k, order).view(len(targets), len(features))
            sums[targets] = arithmetic_for(x_nchw[0]).mix(x_nchw, weights_tk, sums.get(targets))

    def _add_chains(
        self,
        sums: dict[Targets, Tensor],
        shared: Shared,
        multipliers_k: Tensor,
        statistics: RunningStatistics,
    ) -> None:
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
        for group in _groups(ends, lambda _, stage: _norm_key(stage)):
            for members in stacks.together(group):
                terms = [self._chains[each][0] for each in members]
                parts: dict[Hashable, list[int]] = {}
                for position, term in enumerate(terms):
                    parts.setdefault(term.target, []).append(position)
                targets = tuple(target for target in self._targets if target in parts)
                sums[targets] = _normalised(
                    stacks.gather(members),
                    [ends[each].norm for each in members],
                    statistics,
                    multipliers_k=_chosen(multipliers_k, members),
                    sums=tuple(tuple(parts[target]) for target in targets),
                    base_ntchw=sums.get(targets),
                )

    def _order(self, device: torch.device) -> Tensor:
        """The terms' indices, brought to a device once: a captured step brings nothing there."""
        if self._indices is None or self._indices.device != device:
            indices = [term.index for term, _ in (*self._features, *self._chains)]
            self._indices = torch.tensor(indices, dtype=torch.int64, device=device)
        return self._indices


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
    weight_c1kk = beside([depthwise[each].weight for each in members]).flatten(0, 1)
    return Slide(stacks.repeated(members), Kernels(weight_c1kk, first.stride[0], first.dilation[0]))


def _slid(convolution: nn.Conv2d, shape: Sequence[int]) -> tuple[int, ...]:
    """Channels, height and width of what a convolution makes, padded to keep the size."""
    channels, *size = shape
    return (channels, *((each - 1) // convolution.stride[0] + 1 for each in size))


def _pointwise_weights(stages: Mapping[int, Stage], members: Sequence[int]) -> Tensor:
    return beside([stages[each].pointwise.weight for each in members]).flatten(2)


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
    sums: Sums | None = None,
    base_ntchw: Tensor | None = None,
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
        rectify=sums is None,
        sums=sums,
        base_ntchw=base_ntchw,
        known_2kc=known_statistics(norms),
    )
    if norms[0].training:
        for norm, mean_c, variance_c in zip(norms, *measured_2kc, strict=True):
            statistics.record(norm, mean_c, variance_c)
    return result


def _chosen(x_k: Tensor, indices: Sequence[int]) -> Tensor:
    """Some values, which are a part of the tensor if they lie there in this order."""
    if list(indices) == list(range(indices[0], indices[0] + len(indices))):
        return x_k if len(indices) == len(x_k) else x_k.narrow(0, indices[0], len(indices))
    return torch.stack([x_k[index] for index in indices])


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
