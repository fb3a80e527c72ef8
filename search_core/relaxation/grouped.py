"""A sum of many operations in few large kernels, for devices that wait for launches.

The stages of all operations are counted from their ends, and those as far from it are computed
together: depthwise convolutions of the same kernel, stride and dilation as one over the channels of
all, pointwise ones of the same channels as one batch of matrix products, normalisations as one over
the channels of all. A multiplier is a factor of what the last normalisation makes, in the sum.

The modules' own parameters are put side by side (`adjacent`), so that autocast and checkpoints are
those of the plain form. What a plan consists of is `arithmetic`'s: kernels of our own on a GPU,
and elsewhere PyTorch's operations, of which there are second derivatives too.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search_core.relaxation import chains, layers
from search_core.relaxation.arithmetic import arithmetic_for
from search_core.relaxation.chains import Chain
from search_core.relaxation.plans import Term
from search_core.relaxation.portions import Portions, Wanted
from search_core.relaxation.sharing import Shared, Targets
from search_core.relaxation.stacks import Stacks, whole
from search_core.relaxation.stages import (
    Normalised,
    convolve,
    groups,
    norm_key,
    normalise_and_rectify,
    normalised,
    sliding,
)
from search_core.relaxation.statistics import RunningStatistics, bring_together
from search_core.relaxation.works import Part


class GroupedPlan:
    """Adds terms to the states that are sums of them.

    A state that others add to as well is complete when all of their plans have been called.

    Args:
        terms: The terms. Those of a target are added up in any order.

    Attributes:
        order: The terms' indices, in the order in which their multipliers are wanted.
    """

    is_dense = True
    """So that the channels of several operations lie side by side without being moved."""
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
        # What is read of each state, told by what it is.
        self._prefixes: dict[Hashable, list[tuple[nn.Module, ...]]] = {}
        for source in self._sources:
            prefixes = [chain.shared for term, chain in planned if term.source == source]
            known = {tuple(map(layers.sharing_key, prefix)): prefix for prefix in prefixes}
            self._prefixes[source] = list(known.values())
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
        self._normalised = [
            each
            for each, (_, chain) in enumerate(self._features)
            if chain.shared and isinstance(chain.shared[-1], nn.BatchNorm2d) and not chain.calls
        ]
        self.order = [term.index for term, _ in (*self._features, *self._chains)]
        self._wanted = {is_training: Wanted() for is_training in (False, True)}

    @property
    def suits_single(self) -> bool:
        """One operation gains where all of it is computed here; what is only called does not."""
        return not self._features

    @property
    def applies(self) -> bool:
        """Whether the operations are in a state that a plan knows; else they are called plainly."""
        # Not in evaluation either: what is read there together is moved, which a captured step
        # that is computed plainly would not learn.
        if any(norm.momentum is None for norm in self._norms):
            return False
        if all(norm.training for norm in self._norms):
            return True
        return not torch.is_grad_enabled() and not any(
            norm.training or norm.running_mean is None for norm in self._norms
        )

    @property
    def _trains(self) -> bool:
        return bool(self._norms) and self._norms[0].training

    def __call__(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> None:
        """Adds to the targets.

        Args:
            shared: Knows the sources, contiguous, and what the targets are so far.
            multipliers_k: Of the terms, in `order`.
            statistics: Where normalisations leave theirs.
        """
        # Those that others are summed up with are taken out of there first.
        shared.look(self._prefixes)
        sums = shared.take(self._targets)
        multipliers = Portions(multipliers_k, self._wanted[self._trains])
        self._add_features(sums, shared, multipliers, statistics)
        self._add_chains(sums, shared, multipliers, statistics)
        shared.leave(sums)

    def _add_features(
        self,
        sums: dict[Targets, Tensor],
        shared: Shared,
        multipliers: Portions,
        statistics: RunningStatistics,
    ) -> None:
        """One product with the multipliers, which reads each feature once for all targets."""
        mixed = list(range(len(self._features)))
        if self._trains:
            for group in self._alike():
                bring_together([_last_norm(self._features[each]) for each in group])
        else:
            # Each has statistics of its own, so that targets share what is not normalised only.
            mixed = [each for each in mixed if each not in self._normalised]
            self._add_normalised(sums, shared, multipliers, statistics)
        called = {each: _feature(shared, *self._features[each]) for each in mixed}
        uses: dict[tuple[int, int, int], list[int]] = {}
        seen: Counter[tuple[int, int, Hashable]] = Counter()
        for index, part in called.items():
            place = (id(part.stack_nkchw), part.first)
            use = (*place, self._features[index][0].target)
            uses.setdefault((*place, seen[use]), []).append(index)
            seen[use] += 1
        alike: dict[tuple[Targets, torch.Size, torch.dtype], list[list[int]]] = {}
        for indices in uses.values():
            targets = tuple(self._features[index][0].target for index in indices)
            stack_nkchw = called[indices[0]].stack_nkchw
            key = (targets, stack_nkchw.shape[2:], stack_nkchw.dtype)
            alike.setdefault(key, []).append(indices)
        for (targets, _, _), features in alike.items():
            order = [indices[number] for number in range(len(targets)) for indices in features]
            parts = [called[indices[0]] for indices in features]
            weights_tk = multipliers.of(order).view(len(targets), len(features))
            arithmetic = arithmetic_for(parts[0].stack_nkchw)
            sums[targets] = arithmetic.mix(parts, weights_tk, sums.get(targets))

    def _add_normalised(
        self,
        sums: dict[Targets, Tensor],
        shared: Shared,
        multipliers: Portions,
        statistics: RunningStatistics,
    ) -> None:
        """What is normalised as it is, pools for example, in evaluation."""
        for group in self._alike():
            read_nchw = [
                shared.get(term.source, chain.shared[:-1])
                for term, chain in map(self._features.__getitem__, group)
            ]
            parts = groups(dict(enumerate(read_nchw)), lambda _, each: tuple(each.shape))
            for part in parts:
                members = [group[each] for each in part]
                end = _End(
                    Stacks([read_nchw[each] for each in part])
                    .repeated(range(len(part)))
                    .images_nkchw,
                    [_last_norm(self._features[each]) for each in members],
                    [self._features[each][0] for each in members],
                    multipliers.of(members),
                )
                self._add_ends(sums, [end], statistics)

    def _alike(self) -> list[list[int]]:
        """The features that end in a normalisation, by what their statistics look like."""
        return groups(
            {each: _last_norm(self._features[each]) for each in self._normalised},
            lambda _, norm: (norm.eps, norm.num_features),
        )

    def _add_chains(
        self,
        sums: dict[Targets, Tensor],
        shared: Shared,
        multipliers: Portions,
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
            convolve(stacks, stages)
            if left > 1:
                following = {index: self._chains[index][1].stages[1 - left] for index in stages}
                normalise_and_rectify(stacks, stages, following, statistics)
        ends = {index: chain.stages[-1] for index, (_, chain) in enumerate(self._chains)}
        self._add_ends(
            sums,
            [
                _End(
                    stacks.gather(members),
                    [ends[each].norm for each in members],
                    [self._chains[each][0] for each in members],
                    multipliers.of([len(self._features) + each for each in members]),
                )
                for group in groups(ends, lambda _, stage: norm_key(stage))
                for members in stacks.together(group)
            ],
            statistics,
        )

    def _add_ends(
        self, sums: dict[Targets, Tensor], ends: Sequence["_End"], statistics: RunningStatistics
    ) -> None:
        """Normalises what ends in that, and adds it up: to the same sums one after the other."""
        left = list(ends)
        while left:
            now: dict[Targets, _End] = {}
            later = []
            for end in left:
                targets = tuple(each for each in self._targets if each in end.positions)
                if now.setdefault(targets, end) is not end:
                    later.append(end)
            works = [
                Normalised(
                    end.x_nkchw,
                    end.norms,
                    end.multipliers_k,
                    tuple(tuple(end.positions[target]) for target in targets),
                    sums.get(targets),
                )
                for targets, end in now.items()
            ]
            sums.update(zip(now, normalised(works, statistics), strict=True))
            left = later


class _End:
    """Operations that end in normalisations, side by side.

    Args:
        x_nkchw: What is normalised.
        norms: Their normalisations.
        terms: The operations, with what they are added to.
        multipliers_k: Of the operations.

    Attributes:
        x_nkchw: See above.
        norms: Likewise.
        multipliers_k: Likewise.
        positions: Of the operations that are added to each target.
    """

    def __init__(
        self,
        x_nkchw: Tensor,
        norms: Sequence[nn.BatchNorm2d],
        terms: Sequence[Term],
        multipliers_k: Tensor,
    ) -> None:
        self.x_nkchw = x_nkchw
        self.norms = norms
        self.multipliers_k = multipliers_k
        self.positions: dict[Hashable, list[int]] = {}
        for position, term in enumerate(terms):
            self.positions.setdefault(term.target, []).append(position)


def _last_norm(feature: tuple[Term, Chain]) -> nn.BatchNorm2d:
    norm = feature[1].shared[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def _feature(shared: Shared, term: Term, chain: Chain) -> Part:
    if chain.calls:
        return whole(_called(shared, term, chain).unsqueeze(1))
    return shared.part(term.source, chain.shared)


def _called(shared: Shared, term: Term, chain: Chain) -> Tensor:
    x_nchw = shared.get(term.source, chain.shared)
    for call in chain.calls:
        x_nchw = call(x_nchw)
    return x_nchw


def _likeness(chain: Chain) -> tuple[Any, ...]:
    """Sorts operations by their last stages, then by those before."""
    return tuple(
        (
            () if stage.depthwise is None else sliding(stage.depthwise),
            stage.pointwise.in_channels,
            stage.pointwise.out_channels,
            *norm_key(stage),
        )
        for stage in reversed(chain.stages)
    )
