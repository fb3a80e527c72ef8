"""A sum of many operations on a few states, planned as a whole.

Legend: n images, c channels, h height, w width, k terms.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from search_core.relaxation import chains, lanes
from search_core.relaxation.chains import Chain, Stage
from search_core.relaxation.forms import ChainForm, Form, StageForm
from search_core.relaxation.lanes import Lanes
from search_core.relaxation.mixing import mix
from search_core.relaxation.sharing import Shared
from search_core.relaxation.statistics import RunningStatistics


@dataclass(frozen=True)
class Term:
    """An operation of a mixture.

    Attributes:
        source: The state that it reads.
        target: The state that it adds to.
        index: Of its multiplier.
        operation: The operation.
    """

    source: Hashable
    target: Hashable
    index: int
    operation: nn.Module


@runtime_checkable
class Planned(Protocol):
    """A module that may compute its mixture by a plan when it trains."""

    def plan(self) -> None:
        """Does so from now on."""
        ...


class Plan:
    """Computes the states that terms add up to.

    Args:
        terms: The terms. Those of a target are added up in any order.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        planned = [(term, chains.chain_of(term.operation)) for term in terms]
        self._targets = list(dict.fromkeys(term.target for term in terms))
        self._features = [(term, chain) for term, chain in planned if not chain.stages]
        self._chains = [(term, chain) for term, chain in planned if chain.stages]
        ordered = [*self._features, *self._chains]
        self._norms = [
            module
            for term in terms
            for module in term.operation.modules()
            if isinstance(module, nn.BatchNorm2d)
        ]
        self._indices = torch.tensor([term.index for term, _ in ordered])

    @property
    def applies(self) -> bool:
        """Whether the operations are in a state that a plan knows; else they are called plainly."""
        return not _casts() and all(
            norm.training and norm.momentum is not None for norm in self._norms
        )

    def __call__(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> None:
        """Adds the targets to the states.

        Args:
            shared: Knows the sources, and gets to know the targets.
            multipliers_k: By the terms' indices.
            statistics: Where normalisations leave theirs.
        """
        features = [self._feature(term, chain, shared) for term, chain in self._features]
        sources: dict[int, tuple[int, Lanes]] = {}
        forms = []
        weights: list[Tensor] = []
        for term, chain in self._chains:
            source, rectified = _source(term, chain, shared)
            index, _ = sources.setdefault(id(source.values), (len(sources), source))
            forms.append(
                ChainForm(
                    index,
                    self._targets.index(term.target),
                    rectified,
                    tuple(map(_form, chain.stages)),
                )
            )
            weights += [weight for stage in chain.stages for weight in _weights(stage)]
        form = Form(
            tuple(self._targets.index(term.target) for term, _ in self._features),
            len(sources),
            tuple(forms),
        )
        totals, measured = mix(
            form,
            multipliers_k[self._indices],
            features,
            [source for _, source in sources.values()],
            weights,
        )
        norms = [stage.norm for _, chain in self._chains for stage in chain.stages]
        for norm, each in zip(norms, measured, strict=True):
            statistics.record_biased(norm, each.mean_o, each.variance_o, each.count)
        for target, total in zip(self._targets, totals, strict=True):
            shared.add(target, total)

    @staticmethod
    def _feature(term: Term, chain: Chain, shared: Shared) -> Lanes:
        if not chain.calls:
            return shared.in_lanes(term.source, chain.shared)
        return lanes.into(_called(shared.get(term.source, chain.shared), chain))


def _casts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _called(x_nchw: Tensor, chain: Chain) -> Tensor:
    for call in chain.calls:
        x_nchw = call(x_nchw)
    return x_nchw


def _source(term: Term, chain: Chain, shared: Shared) -> tuple[Lanes, bool]:
    """What the stages read, and whether they rectify it."""
    if chain.calls:
        return lanes.into(_called(shared.get(term.source, chain.shared), chain)), False
    *before, last = chain.shared or (None,)
    if type(last) is nn.ReLU:
        return shared.in_lanes(term.source, tuple(before)), True
    return shared.in_lanes(term.source, chain.shared), False


def _form(stage: Stage) -> StageForm:
    outs, ins = stage.pointwise.weight.shape[:2]
    module = stage.depthwise
    kernel, stride, dilation = (
        (0, 1, 1)
        if module is None
        else (module.kernel_size[0], module.stride[0], module.dilation[0])
    )
    return StageForm(ins, outs, kernel, stride, dilation, stage.norm.affine, stage.norm.eps)


def _weights(stage: Stage) -> list[Tensor]:
    found: list[Tensor] = []
    if stage.depthwise is not None:
        found.append(stage.depthwise.weight)
    found.append(stage.pointwise.weight)
    if stage.norm.affine:
        found += [stage.norm.weight, stage.norm.bias]
    return found
