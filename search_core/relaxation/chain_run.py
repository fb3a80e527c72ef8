"""One operation of stages, computed forward and backward by kernels.

Only what each pointwise convolution puts out is kept for the backward pass; the rest is computed
again. Normalisations are not applied but folded into what follows.

Legend: g groups of images, h height, w width, l lanes, i channels that come in, o channels that go
out.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_core.relaxation.forms import ChainForm, Measured, StageForm
from search_core.relaxation.kernels import stages, sums
from search_core.relaxation.kernels.compiling import LANES
from search_core.relaxation.lanes import Lanes, Numbers, constants, numbers

_Sizes = tuple[int, int, int, int, int, int, int, int]


@dataclass(frozen=True)
class ChainGradients:
    """What a backward pass finds.

    Attributes:
        multiplier: Gradient of the multiplier.
        weights: Of the weights in their order; None for each where they were not asked for, but
            for those of normalisations.
    """

    multiplier: float
    weights: list[Tensor | None]


class ChainRun:
    """One chain, computed forward and backward.

    Args:
        chain: What is computed.
        source: What it reads.
        weights: Of its stages.

    Attributes:
        chain: What is computed.
        saved: What a backward pass needs: of each stage what comes out, [g, o, h, w, l], mean and
            biased variance, [2, o], and scale and shift of its normalisation, [2, o].
    """

    def __init__(self, chain: ChainForm, source: Lanes, weights: Sequence[Tensor]) -> None:
        self.chain = chain
        self.saved: list[Tensor] = []
        self._source = source
        self._weights = list(_by_stage(chain, weights))
        self._sizes: list[_Sizes] = []
        _, _, h, w, _ = source.values.shape
        for stage in chain.stages:
            self._sizes.append(
                (
                    source.images,
                    stage.ins,
                    stage.outs,
                    h,
                    w,
                    stage.kernel,
                    stage.stride,
                    stage.dilation,
                )
            )
            h, w = -(-h // stage.stride), -(-w // stage.stride)
        self._out_size = (h, w)

    def forward(self) -> None:
        """Computes every stage."""
        groups = self._source.values.shape[0]
        x = self._source.values
        folded = x.new_empty((2, x.shape[1]))
        mode = stages.RECTIFIED if self.chain.rectified else stages.AS_IS
        for index, (stage, weights) in enumerate(
            zip(self.chain.stages, self._weights, strict=True)
        ):
            h, w = self._size_behind(index)
            y = x.new_empty((groups, stage.outs, h, w, LANES))
            statistics, ours = x.new_empty((2, stage.outs)), x.new_empty((2, stage.outs))
            stages.forward(
                numbers(x),
                mode,
                numbers(folded),
                weights.kernels,
                weights.pointwise,
                numbers(y),
                numbers(statistics),
                _scratch_of(stage, self._sizes[index], x.dtype),
                self._sizes[index],
            )
            sums.fold(
                numbers(statistics), stage.eps, 1.0, weights.scale, weights.shift, numbers(ours)
            )
            self.saved += [y, statistics, ours]
            x, folded, mode = y, ours, stages.NORMALISED

    def restore(self, saved: Iterator[Tensor]) -> None:
        """Takes back what `forward` saved."""
        self.saved = [next(saved) for _ in range(3 * len(self.chain.stages))]

    @property
    def measured(self) -> list[Measured]:
        """What each stage's normalisation measured."""
        return [
            Measured(*self.saved[3 * index + 1].unbind(), self._count(index))
            for index in range(len(self.chain.stages))
        ]

    def add_to(self, total: Tensor, multiplier: float, *, first: bool) -> None:
        """Adds what comes out, times the multiplier.

        Args:
            total: What it is added to, [g, o, h, w, l].
            multiplier: Of the chain.
            first: Whether it is written instead.
        """
        y, statistics, _ = self.saved[-3:]
        weights = self._weights[-1]
        folded = np.empty(2 * y.shape[1], weights.scale.dtype)
        sums.fold(
            numbers(statistics),
            self.chain.stages[-1].eps,
            multiplier,
            weights.scale,
            weights.shift,
            folded,
        )
        channels = y.shape[1]
        sums.add_scaled(
            numbers(y), folded[:channels], folded[channels:], numbers(total), first, _shape(y)
        )

    @property
    def out_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of what comes out."""
        groups = self._source.values.shape[0]
        return (groups, self.chain.stages[-1].outs, *self._out_size, LANES)

    def backward(
        self, d_target: Tensor, multiplier: float, d_source: Tensor | None, *, needs_weights: bool
    ) -> ChainGradients:
        """Computes the gradients.

        Args:
            d_target: Of the target, [g, o, h, w, l].
            multiplier: Of the chain.
            d_source: What the source's gradient is added to; None where it is not needed.
            needs_weights: Whether those of the weights are.

        Returns:
            The gradients.
        """
        d = numbers(d_target)
        y, statistics, _ = self.saved[-3:]
        of_outputs = np.empty(2 * y.shape[1], np.float64)
        sums.gradient_sums(d, numbers(y), numbers(statistics), of_outputs, _shape(y))
        d_multiplier = 0.0
        d_weights: list[Tensor | None] = []
        for index in range(len(self.chain.stages) - 1, -1, -1):
            stage, weights = self.chain.stages[index], self._weights[index]
            y, statistics, _ = self.saved[3 * index : 3 * index + 3]
            coefficients = np.empty(3 * stage.outs, weights.scale.dtype)
            d_norm = y.new_empty((2, stage.outs))
            last = index == len(self.chain.stages) - 1
            found = sums.norm_backward(
                of_outputs,
                self._count(index),
                numbers(statistics),
                stage.eps,
                multiplier if last else 1.0,
                weights.scale,
                weights.shift,
                coefficients,
                numbers(d_norm[0]),
                numbers(d_norm[1]),
            )
            d_multiplier = found if last else d_multiplier
            of_convolutions, d, of_outputs = self._backward_stage(
                index, d, coefficients, d_source, needs_weights=needs_weights
            )
            d_weights = [*of_convolutions, *(d_norm if stage.affine else ()), *d_weights]
        return ChainGradients(d_multiplier, d_weights)

    def _backward_stage(
        self,
        index: int,
        d: Numbers,
        coefficients: Numbers,
        d_source: Tensor | None,
        *,
        needs_weights: bool,
    ) -> tuple[list[Tensor | None], Numbers, Numbers]:
        """Gradients of the convolutions, of what the stage read, and sums of the latter."""
        stage, weights = self.chain.stages[index], self._weights[index]
        depthwise = [None] if stage.kernel else []
        if not index and d_source is None and not needs_weights:
            return [*depthwise, None], d, coefficients
        y = self.saved[3 * index]
        if index:
            x, means, folded = self.saved[3 * index - 3 : 3 * index]
            # In turn, since the one before is still being read.
            d_x = _buffer(f"gradient {index % 2}", x.numel(), x.dtype)
            mode = stages.NORMALISED
        else:
            x, mode = self._source.values, stages.RECTIFIED
            if not self.chain.rectified:
                mode = stages.AS_IS
            means = folded = x.new_empty((2, stage.ins))
            d_x = d if d_source is None else numbers(d_source)
        d_sums = np.empty(2 * stage.ins, np.float64)
        d_kernels = y.new_empty((stage.ins, 1, stage.kernel, stage.kernel) if needs_weights else 0)
        d_pointwise = y.new_empty((stage.outs, stage.ins, 1, 1) if needs_weights else 0)
        stages.backward(
            d,
            numbers(y),
            coefficients,
            numbers(x),
            mode,
            numbers(folded),
            numbers(means),
            weights.kernels,
            weights.pointwise,
            d_x,
            d_sums,
            numbers(d_kernels),
            numbers(d_pointwise),
            index > 0 or d_source is not None,
            needs_weights,
            _scratch_of(stage, self._sizes[index], x.dtype),
            self._sizes[index],
        )
        if not needs_weights:
            return [*depthwise, None], d_x, d_sums
        return [*([d_kernels] if stage.kernel else []), d_pointwise], d_x, d_sums

    def _size_behind(self, index: int) -> tuple[int, int]:
        if index + 1 < len(self._sizes):
            return self._sizes[index + 1][3:5]
        return self._out_size

    def _count(self, index: int) -> int:
        h, w = self._size_behind(index)
        return self._source.images * h * w


@dataclass(frozen=True)
class _StageWeights:
    kernels: Numbers
    pointwise: Numbers
    scale: Numbers
    shift: Numbers


def _by_stage(chain: ChainForm, weights: Sequence[Tensor]) -> Iterator[_StageWeights]:
    given = iter(weights)
    for stage in chain.stages:
        depthwise = next(given) if stage.kernel else None
        pointwise = next(given)
        if stage.affine:
            scale, shift = numbers(next(given)), numbers(next(given))
        else:
            scale, shift = constants(stage.outs, pointwise.dtype)
        yield _StageWeights(
            numbers((pointwise if depthwise is None else depthwise).contiguous()),
            numbers(pointwise.contiguous()),
            scale,
            shift,
        )


def _shape(y: Tensor) -> tuple[int, int, int]:
    groups, channels, h, w, _ = y.shape
    return groups, channels, h * w


def _scratch_of(stage: StageForm, sizes: _Sizes, dtype: torch.dtype) -> Numbers:
    width = sizes[4]
    size = stages.scratch_size(
        stage.ins, stage.outs, width, stage.kernel, stage.stride, stage.dilation
    )
    return _buffer("scratch", size, dtype)


_thread = threading.local()


def _buffer(name: str, size: int, dtype: torch.dtype) -> Numbers:
    """Memory of this thread for what is not needed for long: at least so many numbers."""
    buffers: dict[Any, Numbers] = _thread.__dict__.setdefault("buffers", {})
    known = buffers.get((name, dtype))
    if known is None or known.size < size:
        known = buffers[name, dtype] = torch.empty(size, dtype=dtype).numpy()
    return known
