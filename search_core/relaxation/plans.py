"""A sum of many operations on a few states, planned as a whole.

Legend: n images, c channels, h height, w width, k terms.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from search_core.relaxation import chains
from search_core.relaxation.chains import Chain, Stage
from search_core.relaxation.depthwise import Depthwise
from search_core.relaxation.forms import ChainForm, Form, StageForm
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

    @property
    def planned(self) -> bool:
        """Whether it does so."""
        ...

    def plan(self) -> None:
        """Does so from now on, where there is anything to plan."""
        ...

    def unplan(self) -> None:
        """Computes plainly from now on."""
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
    ) -> Mapping[Hashable, Tensor]:
        """The targets.

        Args:
            shared: Knows the sources.
            multipliers_k: By the terms' indices.
            statistics: Where normalisations leave theirs.

        Returns:
            The sums, [n, c, h, w] by target.
        """
        self._indices = self._indices.to(multipliers_k.device)
        features = [
            _called(shared.get(term.source, chain.shared), chain) for term, chain in self._features
        ]
        sources = _Sources()
        forms = []
        weights: list[Tensor] = []
        for term, chain in self._chains:
            source_nchw, phases, first = _source(term, chain, shared)
            forms.append(
                ChainForm(
                    sources.index(source_nchw),
                    self._targets.index(term.target),
                    phases,
                    (first, *map(_form, chain.stages[1:])),
                )
            )
            weights += [weight for stage in chain.stages for weight in _weights(stage)]
        form = Form(
            tuple(self._targets.index(term.target) for term, _ in self._features),
            len(sources.tensors),
            tuple(forms),
        )
        totals, measured = mix(
            form, multipliers_k[self._indices], features, sources.tensors, weights
        )
        norms = [stage.norm for _, chain in self._chains for stage in chain.stages]
        for norm, each in zip(norms, measured, strict=True):
            statistics.record_biased(norm, each.mean_o, each.variance_o, each.count)
        return dict(zip(self._targets, totals, strict=True))


class _Sources:
    """Different tensors, in the order of their first use."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._indices: dict[int, int] = {}

    def index(self, x_nchw: Tensor) -> int:
        index = self._indices.setdefault(id(x_nchw), len(self.tensors))
        if index == len(self.tensors):
            self.tensors.append(x_nchw)
        return index


def _casts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _called(x_nchw: Tensor, chain: Chain) -> Tensor:
    for call in chain.calls:
        x_nchw = call(x_nchw)
    return x_nchw.contiguous(memory_format=torch.channels_last)


def _source(term: Term, chain: Chain, shared: Shared) -> tuple[Tensor, int, StageForm]:
    """What the stages read, how its pixels lie, and the form of the first of them."""
    form = _form(chain.stages[0])
    x_nchw = shared.get(term.source, chain.shared)
    if not chain.calls and form.depthwise is not None and form.depthwise.dilation > 1:
        dilation, stride = form.depthwise.dilation, form.depthwise.stride
        padding = form.depthwise.padding // dilation
        undilated = StageForm(Depthwise(1, padding), form.affine, form.eps)
        if stride == dilation:
            return shared.subsampled(x_nchw, dilation), 1, undilated
        height, width = x_nchw.shape[2:]
        if stride == 1 and height % dilation == 0 and width % dilation == 0:
            return shared.phases(x_nchw, dilation), dilation, undilated
    return _called(x_nchw, chain), 1, form


def _form(stage: Stage) -> StageForm:
    depthwise = None
    if stage.depthwise is not None:
        module = stage.depthwise
        depthwise = Depthwise(module.stride[0], int(module.padding[0]), module.dilation[0])
    return StageForm(depthwise, stage.norm.affine, stage.norm.eps)


def _weights(stage: Stage) -> list[Tensor]:
    found: list[Tensor] = []
    if stage.depthwise is not None:
        found.append(stage.depthwise.weight)
    found.append(stage.pointwise.weight)
    if stage.norm.affine:
        found += [stage.norm.weight, stage.norm.bias]
    return found
