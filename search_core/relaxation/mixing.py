"""The sum of many operations as one differentiable function.

Written out by hand: the last normalisation of each operation, its multiplier and the sum become one
pass over memory, and gradients that nobody asked for are not computed.

Legend: n images, c channels, h height, w width, m pixels of all images, k terms, i channels that
come in, o channels that go out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from search_core.relaxation.chain_run import ChainRun, Place
from search_core.relaxation.forms import Form, Measured
from search_core.relaxation.phases import from_phases, image, pixels, to_phases


def mix(
    form: Form,
    multipliers_k: Tensor,
    features_nchw: Sequence[Tensor],
    sources_nchw: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], list[Measured]]:
    """Sums of features and of chains, each times its multiplier.

    Args:
        form: What is computed.
        multipliers_k: Of the features, then of the chains.
        features_nchw: Channels last.
        sources_nchw: Channels last.
        weights: Of every stage of every chain.

    Returns:
        The targets in their order, and what every stage's normalisation measured.
    """
    measured: list[Measured] = []
    targets = _Mix.apply(form, measured, multipliers_k, *features_nchw, *sources_nchw, *weights)
    return targets, measured


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, form: Form, measured: list[Measured], multipliers_k: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.form = form
        features, sources, weights = _divided(form, tensors)
        multipliers = multipliers_k.unbind()
        totals = _Totals()
        for target, multiplier, feature_nchw in zip(
            form.features, multipliers, features, strict=False
        ):
            n, _, h, w = feature_nchw.shape
            totals.add(target, Place(n, h, w, 1), pixels(feature_nchw), multiplier)
        runs = _runs(form, sources, weights)
        saved: list[Tensor] = []
        for run, multiplier in zip(runs, multipliers[len(features) :], strict=True):
            run.forward()
            scale_o, shift_o = run.folded(-1, multiplier)
            totals.add(run.chain.target, run.outs[-1], run.y[-1], scale_o, shift_o)
            measured += run.measured
            for of_stage in zip(run.y, run.mean, run.inverse, strict=True):
                saved += of_stage
        ctx.num_saved = len(saved)
        ctx.save_for_backward(multipliers_k, *saved, *tensors)
        return totals.images()

    @staticmethod
    def backward(ctx: Any, *d_targets_nchw: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # `once_differentiable` would say so only if nobody asked for chosen inputs' gradients.
            raise RuntimeError(
                "a planned relaxation has no second derivative; choose the relaxation 'plain'"
            )
        form: Form = ctx.form
        multipliers_k, *rest = ctx.saved_tensors
        saved, tensors = iter(rest[: ctx.num_saved]), rest[ctx.num_saved :]
        features, sources, weights = _divided(form, tensors)
        needs_multipliers, *needs = ctx.needs_input_grad[2:]
        needs_features, needs_sources, needs_weights = _divided(form, needs)
        multipliers = multipliers_k.unbind()
        gradients = _Gradients(d_targets_nchw)
        d_multipliers: list[Tensor] = []
        d_features: list[Tensor | None] = []
        for target, multiplier, feature_nchw, needed in zip(
            form.features, multipliers, features, needs_features, strict=False
        ):
            d_nchw = gradients.images[target]
            if needs_multipliers:
                d_multipliers.append(_dot(pixels(d_nchw), pixels(feature_nchw)))
            d_features.append(multiplier * d_nchw if needed else None)
        runs = _runs(form, sources, weights)
        d_sources: list[Tensor | None] = [None] * form.num_sources
        d_weights: list[Tensor | None] = []
        for run, multiplier, needed in zip(
            runs, multipliers[len(features) :], _by_chain(form, needs_weights), strict=True
        ):
            run.restore(saved)
            source = run.chain.source
            found = run.backward(
                gradients.rows(run.chain.target, run.outs[-1].phases),
                multiplier,
                needs_source=needs_sources[source],
                needs_weights=any(needed),
            )
            d_multipliers.append(found.multiplier)
            d_weights += found.weights
            known = d_sources[source]
            if known is None:
                d_sources[source] = found.source
            elif found.source is not None:
                known.add_(found.source)
        d_multipliers_k = torch.stack(d_multipliers) if needs_multipliers else None
        return (None, None, d_multipliers_k, *d_features, *d_sources, *d_weights)


def _runs(form: Form, sources: Sequence[Tensor], weights: Sequence[Tensor]) -> list[ChainRun]:
    return [
        ChainRun(chain, sources[chain.source], of_chain)
        for chain, of_chain in zip(form.chains, _by_chain(form, weights), strict=True)
    ]


class _Totals:
    """Sums in the making, by target and phases."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Tensor] = {}
        self._places: dict[tuple[int, int], Place] = {}
        self._shifts: dict[int, list[Tensor]] = {}

    def add(
        self,
        target: int,
        place: Place,
        rows_mo: Tensor,
        scale: Tensor,
        shift_o: Tensor | None = None,
    ) -> None:
        """Adds `rows * scale + shift`."""
        key = (target, place.phases)
        total_mo = self._rows.get(key)
        if total_mo is None:
            self._rows[key] = rows_mo * scale
            self._places[key] = place
        else:
            total_mo.addcmul_(rows_mo, scale)
        if shift_o is not None:
            self._shifts.setdefault(target, []).append(shift_o)

    def images(self) -> tuple[Tensor, ...]:
        """The targets, in their order."""
        found: dict[int, Tensor] = {}
        for (target, phases), rows_mo in sorted(self._rows.items(), key=lambda item: item[0]):
            place = self._places[target, phases]
            part_nchw = image(rows_mo, place.n, place.h, place.w)
            if phases > 1:
                part_nchw = from_phases(part_nchw, phases)
            known = found.get(target)
            found[target] = part_nchw if known is None else known.add_(part_nchw)
        for target, shifts in self._shifts.items():
            found[target] += torch.stack(shifts).sum(0)[:, None, None]
        return tuple(found[target] for target in sorted(found))


class _Gradients:
    """The targets' gradients, as images and as rows."""

    def __init__(self, d_targets_nchw: Sequence[Tensor]) -> None:
        self.images = [
            each.contiguous(memory_format=torch.channels_last) for each in d_targets_nchw
        ]
        self._rows: dict[tuple[int, int], Tensor] = {}

    def rows(self, target: int, phases: int) -> Tensor:
        """The gradient of a target in the order of phases, [m, o]."""
        key = (target, phases)
        if key not in self._rows:
            d_nchw = self.images[target]
            self._rows[key] = pixels(d_nchw if phases == 1 else to_phases(d_nchw, phases))
        return self._rows[key]


def _divided(
    form: Form, given: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Features, sources and weights."""
    first = len(form.features)
    second = first + form.num_sources
    return given[:first], given[first:second], given[second:]


def _by_chain(form: Form, weights: Sequence[Any]) -> Iterator[Sequence[Any]]:
    first = 0
    for chain in form.chains:
        yield weights[first : first + chain.num_weights]
        first += chain.num_weights


def _dot(a_mc: Tensor, b_mc: Tensor) -> Tensor:
    return torch.dot(a_mc.reshape(-1), b_mc.reshape(-1))
