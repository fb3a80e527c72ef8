"""One operation of stages, computed forward and backward.

It is computed a few images at a time, so that what passes from one convolution to the next is still
in the cache. Only what each pointwise convolution puts out is kept for the backward pass; the rest
is computed again. Normalisations are not applied but folded into what follows.

Legend: n images, c channels, h height, w width, m pixels of all images, i channels that come in, o
channels that go out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from search_core.relaxation.forms import ChainForm, Measured, StageForm
from search_core.relaxation.phases import from_phases, image, of_images, pixels, to_phases

_CACHED_BYTES: Final = 1 << 20
"""What the largest tensor of a few images may take on a CPU, where it is to stay in the cache."""


@dataclass(frozen=True)
class Place:
    """The shape of a stage's input or output.

    Attributes:
        n: Images, or those of all phases.
        h: Height.
        w: Width.
        phases: How far apart the pixels are.
    """

    n: int
    h: int
    w: int
    phases: int

    @property
    def num_rows(self) -> int:
        """Pixels of all images."""
        return self.n * self.h * self.w


@dataclass(frozen=True)
class ChainGradients:
    """What a backward pass finds.

    Attributes:
        multiplier: Gradient of the multiplier.
        source: Of the source; None where it was not asked for.
        weights: Of the weights in their order; None for each where they were not asked for, but
            for those of normalisations.
    """

    multiplier: Tensor
    source: Tensor | None
    weights: list[Tensor | None]


class ChainRun:
    """One chain, computed forward and backward.

    Attributes:
        ins: Where each stage reads.
        outs: Where each stage writes.
        y: What each pointwise convolution puts out, [m, o].
        mean: Its means.
        inverse: One over its standard deviations.
        measured: For the running statistics.
    """

    def __init__(self, chain: ChainForm, source_nchw: Tensor, weights: Sequence[Tensor]) -> None:
        self.chain = chain
        self.source_nchw = source_nchw
        self.weights = list(_by_stage(chain, weights))
        self.ins: list[Place] = []
        self.outs: list[Place] = []
        n, _, h, w = source_nchw.shape
        phases = chain.phases
        for index, stage in enumerate(chain.stages):
            stride = stage.depthwise.stride if stage.depthwise else 1
            if index and stage.depthwise and phases > 1:
                n, h, w, phases = n // phases**2, h * phases, w * phases, 1
            self.ins.append(Place(n, h, w, phases))
            h, w = -(-h // stride), -(-w // stride)
            self.outs.append(Place(n, h, w, phases))
        self.y: list[Tensor] = []
        self.mean: list[Tensor] = []
        self.inverse: list[Tensor] = []
        self.measured: list[Measured] = []

    def forward(self) -> None:
        """Computes every stage."""
        for index, (stage, place) in enumerate(zip(self.chain.stages, self.outs, strict=True)):
            weights = self.weights[index]
            pointwise_oi = weights.pointwise_oi
            y_mo = pointwise_oi.new_empty((place.num_rows, pointwise_oi.shape[0]))
            pointwise_io = pointwise_oi.t()
            for first, last in self._chunks(index):
                x_nchw = self._input(index, first, last)
                if stage.depthwise is not None:
                    assert weights.depthwise is not None
                    x_nchw = stage.depthwise.forward(x_nchw, weights.depthwise)
                torch.mm(pixels(x_nchw), pointwise_io, out=_rows(y_mo, place, first, last))
            mean_o, variance_o = torch.ops.aten.batch_norm_update_stats(y_mo, None, None, 0.0)
            self.y.append(y_mo)
            self.mean.append(mean_o)
            self.inverse.append((variance_o + stage.eps).rsqrt_())
            self.measured.append(Measured(mean_o, variance_o, place.num_rows))

    def restore(self, saved: Iterator[Tensor]) -> None:
        """Takes back what `forward` computed."""
        for _ in self.chain.stages:
            self.y.append(next(saved))
            self.mean.append(next(saved))
            self.inverse.append(next(saved))

    def folded(self, index: int, multiplier: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a stage's normalisation and the multiplier do to `y`: scale and shift."""
        weights = self.weights[index]
        scale_o, mean_o = self.inverse[index], self.mean[index]
        if weights.scale_o is not None:
            scale_o = scale_o * weights.scale_o
        if multiplier is not None:
            scale_o = scale_o * multiplier
        shift_o = mean_o * -scale_o
        if weights.shift_o is not None:
            shift_o = shift_o + (
                weights.shift_o if multiplier is None else multiplier * weights.shift_o
            )
        return scale_o, shift_o

    def backward(
        self, d_mo: Tensor, multiplier: Tensor, *, needs_source: bool, needs_weights: bool
    ) -> "ChainGradients":
        """Computes the gradients.

        Args:
            d_mo: Of the target, in the order in which the last stage writes.
            multiplier: Of the chain.
            needs_source: Whether the source's is needed.
            needs_weights: Whether those of the weights are.

        Returns:
            The gradients.
        """
        last = self.weights[-1]
        gain_o = multiplier if last.scale_o is None else multiplier * last.scale_o
        gain_o = gain_o.expand(self.mean[-1].shape[0]).contiguous()
        d_y, d_gain_o, d_offset_o = self._through_norm(-1, d_mo, gain_o)
        if last.scale_o is None or last.shift_o is None:
            d_multiplier = d_gain_o.sum()
        else:
            d_multiplier = torch.dot(d_gain_o, last.scale_o) + torch.dot(d_offset_o, last.shift_o)
        of_norm = [multiplier * d_gain_o, multiplier * d_offset_o]
        d_weights: list[Tensor | None] = []
        d_source: Tensor | None = None
        for index in range(len(self.chain.stages) - 1, -1, -1):
            d_input: Tensor | None = None
            if index:
                d_input = torch.empty_like(self.y[index - 1])
            elif needs_source:
                d_input = d_source = torch.empty_like(self.source_nchw)
            of_convolutions = self._backward_stage(index, d_y, d_input, needs_weights)
            of_norm = of_norm if self.weights[index].scale_o is not None else []
            d_weights = [*of_convolutions, *of_norm, *d_weights]
            if index:
                assert d_input is not None
                scale_o = self.weights[index - 1].scale_o
                d_y, *of_norm = self._through_norm(index - 1, d_input, scale_o)
        return ChainGradients(d_multiplier, d_source, d_weights)

    def _through_norm(
        self, index: int, d_mo: Tensor, gain_o: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            d_mo,
            self.y[index],
            torch.ones_like(self.mean[index]) if gain_o is None else gain_o,
            None,
            None,
            self.mean[index],
            self.inverse[index],
            True,
            self.chain.stages[index].eps,
            [True, True, True],
        )
        return found

    def _backward_stage(
        self, index: int, d_y: Tensor, d_input: Tensor | None, needs_weights: bool
    ) -> list[Tensor | None]:
        """Puts the input's gradient where it belongs, and returns those of the convolutions."""
        place, weights = self.outs[index], self.weights[index]
        gradients = _Convolutions(self.chain.stages[index], weights)
        for first, last in self._chunks(index):
            x_nchw = self._input(index, first, last)
            d_rows = _rows(d_y, place, first, last)
            d_nchw = image(torch.mm(d_rows, weights.pointwise_oi), last - first, place.h, place.w)
            if needs_weights:
                gradients.add(d_rows, d_nchw, x_nchw)
            if d_input is None:
                continue
            d_nchw = gradients.of_input(d_nchw, x_nchw)
            if index:
                # What was rectified to 0 lets nothing through.
                d_nchw = torch.ops.aten.threshold_backward(d_nchw, x_nchw, 0)
                self._put(index, d_input, d_nchw, first, last)
            else:
                d_input[first:last] = d_nchw
        return gradients.found()

    def _chunks(self, index: int) -> Iterator[tuple[int, int]]:
        """First images of a few, and of the next few, that a stage computes together."""
        place = self.ins[index]
        step = place.n
        if self.source_nchw.device.type == "cpu":
            channels = max(self.weights[index].pointwise_oi.shape)
            size = self.source_nchw.element_size() * place.h * place.w * channels
            step = max(1, min(place.n, _CACHED_BYTES // size))
            step = -(-place.n // -(-place.n // step))
        for first in range(0, place.n, step):
            yield first, min(first + step, place.n)

    def _input(self, index: int, first: int, last: int) -> Tensor:
        """What a stage reads of some images, channels last."""
        if not index:
            return self.source_nchw[first:last]
        place, before = self.ins[index], self.outs[index - 1]
        scale_o, shift_o = self.folded(index - 1, None)
        y_mo = self.y[index - 1]
        if before.phases == place.phases:
            x_mo = torch.addcmul(shift_o, _rows(y_mo, place, first, last), scale_o).relu_()
            return image(x_mo, last - first, place.h, place.w)
        size = before.h * before.w
        part = of_images(y_mo, before.phases, first * size, last * size)
        x_mo = torch.addcmul(shift_o, part, scale_o).relu_().flatten(0, 1)
        count = before.phases**2 * (last - first)
        return from_phases(image(x_mo, count, before.h, before.w), before.phases)

    def _put(
        self, index: int, d_previous_mi: Tensor, d_nchw: Tensor, first: int, last: int
    ) -> None:
        """Puts the gradient of some images in the order in which the stage before wrote them."""
        place, before = self.ins[index], self.outs[index - 1]
        if before.phases == place.phases:
            _rows(d_previous_mi, place, first, last).copy_(pixels(d_nchw))
            return
        size = before.h * before.w
        part = of_images(d_previous_mi, before.phases, first * size, last * size)
        part.copy_(pixels(to_phases(d_nchw, before.phases)).view(part.shape))


class _Convolutions:
    """The convolutions of a stage, with their gradients in the making."""

    def __init__(self, stage: StageForm, weights: "_StageWeights") -> None:
        self._form = stage.depthwise
        self._weights = weights
        self._depthwise: Tensor | None = None
        self._pointwise_oi: Tensor | None = None

    def add(self, d_mo: Tensor, d_nchw: Tensor, x_nchw: Tensor) -> None:
        """Adds what some images say.

        Args:
            d_mo: Gradient of what the pointwise convolution puts out.
            d_nchw: Of what it reads.
            x_nchw: What the stage reads.
        """
        seen_nchw = x_nchw
        if self._form is not None:
            kernels = self._weights.depthwise
            assert kernels is not None
            seen_nchw = self._form.forward(x_nchw, kernels)
            part = self._form.of_weight(d_nchw, x_nchw, kernels)
            self._depthwise = part if self._depthwise is None else self._depthwise.add_(part)
        if self._pointwise_oi is None:
            self._pointwise_oi = torch.mm(d_mo.t(), pixels(seen_nchw))
        else:
            self._pointwise_oi.addmm_(d_mo.t(), pixels(seen_nchw))

    def of_input(self, d_nchw: Tensor, x_nchw: Tensor) -> Tensor:
        """The gradient of what the stage reads."""
        if self._form is None or self._weights.depthwise is None:
            return d_nchw
        return self._form.of_input(d_nchw, x_nchw, self._weights.depthwise)

    def found(self) -> list[Tensor | None]:
        """The gradients, in the weights' order; None each where nothing was added."""
        of_pointwise = self._pointwise_oi
        if of_pointwise is not None:
            of_pointwise = of_pointwise[:, :, None, None]
        return [of_pointwise] if self._form is None else [self._depthwise, of_pointwise]


@dataclass(frozen=True)
class _StageWeights:
    depthwise: Tensor | None
    pointwise_oi: Tensor
    scale_o: Tensor | None
    shift_o: Tensor | None


def _by_stage(chain: ChainForm, weights: Sequence[Tensor]) -> Iterator[_StageWeights]:
    given = iter(weights)
    for stage in chain.stages:
        depthwise = next(given) if stage.depthwise is not None else None
        pointwise_oi = next(given)[:, :, 0, 0]
        scale_o, shift_o = (next(given), next(given)) if stage.affine else (None, None)
        yield _StageWeights(depthwise, pointwise_oi, scale_o, shift_o)


def _rows(y_mo: Tensor, place: Place, first: int, last: int) -> Tensor:
    size = place.h * place.w
    return y_mo[first * size : last * size]
