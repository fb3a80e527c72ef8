"""A sum of many operations on a few states, planned as a whole.

Legend: n images, c channels, h height, w width, k terms.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import getitem
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from search_core.relaxation import chains, lanes
from search_core.relaxation.chains import Chain, Stage
from search_core.relaxation.forms import ChainForm, Form, StageForm
from search_core.relaxation.lanes import Lanes
from search_core.relaxation.mixing import mix
from search_core.relaxation.program import Program
from search_core.relaxation.sharing import Shared
from search_core.relaxation.statistics import RunningStatistics, correction
from search_core.relaxation.tables import Tables

_DTYPES: Final = (torch.float32, torch.float64)
"""Those that there are kernels for."""


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


class Plan:
    """Computes the states that terms add up to.

    Args:
        terms: The terms. Those of a target are added up in any order.

    Attributes:
        order: The terms' indices, in the order in which their multipliers are wanted.
    """

    is_dense = False
    """Images go into lanes from any layout."""
    suits_single = True
    """One operation is faster planned, too."""
    suits_unrelated = True
    """Threads share operations, whatever they read and add to."""
    by_source = False
    """Each of the states is made at once."""
    evaluates = False
    """In evaluation the plain form takes less memory."""

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
        self._stages = [stage for _, chain in self._chains for stage in chain.stages]
        self._weights = [weight for stage in self._stages for weight in _weights(stage)]
        self._programs: dict[Hashable, Program] = {}
        self.order = [term.index for term, _ in ordered]

    @property
    def applies(self) -> bool:
        """Whether the operations are in a state that a plan knows; else they are called plainly."""
        return not _casts() and all(map(_is_usual, self._norms))

    def __call__(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> None:
        """Adds the targets to the states.

        Args:
            shared: Knows the sources, and gets to know the targets.
            multipliers_k: Of the terms, in `order`.
            statistics: Where normalisations leave theirs.
        """
        features = [self._feature(term, chain, shared) for term, chain in self._features]
        sources: list[Lanes] = []
        known: dict[int, int] = {}
        reads = []
        for term, chain in self._chains:
            source, rectified = _source(term, chain, shared)
            index = known.setdefault(id(source.values), len(sources))
            if index == len(sources):
                sources.append(source)
            reads.append((index, rectified))
        program = self._program(tuple(reads), features, sources)
        weights = [weight() for weight in self._weights]
        # Most passes of a second order record nothing.
        records = any(stage.norm.track_running_stats for stage in self._stages)
        totals, measured = mix(program, multipliers_k, features, sources, weights, measures=records)
        if records:
            for stage, count, (mean_o, variance_o) in zip(
                self._stages, program.counts, measured, strict=True
            ):
                statistics.record_biased(stage.norm, mean_o, variance_o, count)
        for index, total in totals.items():
            shared.add(self._targets[index], total)

    def _program(
        self,
        reads: tuple[tuple[int, bool], ...],
        features: Sequence[Lanes],
        sources: Sequence[Lanes],
    ) -> Program:
        """What is computed of tensors of these shapes; the same as before if they are the same."""
        some = (features or sources)[0]
        key = (
            reads,
            some.images,
            some.values.dtype,
            tuple(each.values.shape for each in features),
            tuple(each.values.shape for each in sources),
        )
        if key not in self._programs:
            form = Form(
                tuple(self._targets.index(term.target) for term, _ in self._features),
                len(sources),
                tuple(
                    ChainForm(
                        index,
                        self._targets.index(term.target),
                        rectified,
                        tuple(map(_form, chain.stages)),
                    )
                    for (term, chain), (index, rectified) in zip(self._chains, reads, strict=True)
                ),
            )
            tables = Tables(form, some.images, key[3], key[4], some.values.dtype)
            program = Program(tables)
            for count in program.counts:
                correction(count)  # refuses what cannot be normalised, recorded or not
            self._programs[key] = program
        return self._programs[key]

    @staticmethod
    def _feature(term: Term, chain: Chain, shared: Shared) -> Lanes:
        if not chain.calls:
            return shared.in_lanes(term.source, chain.shared)
        return lanes.into(_called(shared.get(term.source, chain.shared), chain))


def _casts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _is_usual(norm: nn.BatchNorm2d) -> bool:
    running_mean = norm._buffers.get("running_mean")
    return (
        norm.training
        and norm.momentum is not None
        and running_mean is not None
        and running_mean.dtype in _DTYPES
        and running_mean.is_cpu
    )


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
    outs, ins = stage.pointwise.out_channels, stage.pointwise.in_channels
    module = stage.depthwise
    kernel, stride, dilation = (
        (0, 1, 1)
        if module is None
        else (module.kernel_size[0], module.stride[0], module.dilation[0])
    )
    return StageForm(ins, outs, kernel, stride, dilation, stage.norm.affine, stage.norm.eps)


def _weights(stage: Stage) -> list[Callable[[], Tensor]]:
    """What finds the weights of a stage, as they are when it is called."""
    found = [_reader(stage.pointwise, "weight")]
    if stage.depthwise is not None:
        found.insert(0, _reader(stage.depthwise, "weight"))
    if stage.norm.affine:
        found += [_reader(stage.norm, "weight"), _reader(stage.norm, "bias")]
    return found


def _reader(module: Any, name: str) -> Callable[[], Tensor]:
    # Modules take long to find what they hold: ten times as long as a dictionary.
    own = module._parameters
    if name in own:
        found: Callable[[], Any] = partial(getitem, cast(Any, own), name)  # a copy's, in a copy
        return found
    return partial(getattr, module, name)
