"""The sum of many operations as one differentiable function.

Written out by hand: the last normalisation of each operation, its multiplier and the sum become one
pass over memory, and gradients that nobody asked for are not computed.

Legend: k terms, g groups of images, c channels, h height, w width, l lanes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from search_core.relaxation import parallel
from search_core.relaxation.chain_run import ChainGradients, ChainRun
from search_core.relaxation.forms import Form, Measured
from search_core.relaxation.kernels import sums
from search_core.relaxation.lanes import Lanes, numbers


def mix(
    form: Form,
    multipliers_k: Tensor,
    features: Sequence[Lanes],
    sources: Sequence[Lanes],
    weights: Sequence[Tensor],
) -> tuple[tuple[Lanes, ...], list[Measured]]:
    """Sums of features and of chains, each times its multiplier.

    Args:
        form: What is computed.
        multipliers_k: Of the features, then of the chains.
        features: In the order of the form.
        sources: Likewise.
        weights: Of every stage of every chain.

    Returns:
        The targets in their order, and what every stage's normalisation measured.
    """
    measured: list[Measured] = []
    images = (features or sources)[0].images
    targets = _Mix.apply(
        form,
        images,
        measured,
        multipliers_k,
        *(each.values for each in features),
        *(each.values for each in sources),
        *weights,
    )
    return tuple(Lanes(target, images) for target in targets), measured


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        form: Form,
        images: int,
        measured: list[Measured],
        multipliers_k: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.form, ctx.images = form, images
        features, sources, weights = _divided(form, tensors)
        multipliers = multipliers_k.tolist()
        runs = _runs(form, images, sources, weights)
        parallel.run([run.forward for run in runs], [run.chain.cost for run in runs])
        totals: dict[int, Tensor] = {}
        for target, multiplier, feature in zip(form.features, multipliers, features, strict=False):
            first = target not in totals
            if first:
                totals[target] = torch.empty_like(feature)
            sums.add_multiple(numbers(feature), multiplier, numbers(totals[target]), first)
        saved: list[Tensor] = []
        for run, multiplier in zip(runs, multipliers[len(features) :], strict=True):
            target = run.chain.target
            first = target not in totals
            if first:
                totals[target] = multipliers_k.new_empty(run.out_shape)
            run.add_to(totals[target], multiplier, first=first)
            measured += run.measured
            saved += run.saved
        ctx.num_saved = len(saved)
        ctx.save_for_backward(multipliers_k, *saved, *tensors)
        return tuple(totals[target] for target in sorted(totals))

    @staticmethod
    def backward(ctx: Any, *d_targets: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # `once_differentiable` would say so only if nobody asked for chosen inputs' gradients.
            raise RuntimeError(
                "a planned relaxation has no second derivative; choose the relaxation 'plain'"
            )
        form: Form = ctx.form
        multipliers_k, *rest = ctx.saved_tensors
        saved, tensors = iter(rest[: ctx.num_saved]), rest[ctx.num_saved :]
        features, sources, weights = _divided(form, tensors)
        needs_multipliers, *needs = ctx.needs_input_grad[3:]
        needs_features, needs_sources, needs_weights = _divided(form, needs)
        multipliers = multipliers_k.tolist()
        gradients = [each.contiguous() for each in d_targets]
        d_multipliers: list[float] = []
        d_features: list[Tensor | None] = []
        for target, multiplier, feature, needed in zip(
            form.features, multipliers, features, needs_features, strict=False
        ):
            d = gradients[target]
            d_multipliers.append(
                sums.dot(numbers(d), numbers(feature)) if needs_multipliers else 0.0
            )
            d_feature = None
            if needed:
                d_feature = torch.empty_like(d)
                sums.add_multiple(numbers(d), multiplier, numbers(d_feature), True)
            d_features.append(d_feature)
        runs = _runs(form, ctx.images, sources, weights)
        for run in runs:
            run.restore(saved)
        found, d_sources = _chain_gradients(
            runs,
            gradients,
            multipliers[len(features) :],
            [sources[index] if needed else None for index, needed in enumerate(needs_sources)],
            [any(needed) for needed in _by_chain(form, needs_weights)],
        )
        d_weights: list[Tensor | None] = []
        for each in found:
            d_multipliers.append(each.multiplier)
            d_weights += each.weights
        d_multipliers_k = multipliers_k.new_tensor(d_multipliers) if needs_multipliers else None
        return (None, None, None, d_multipliers_k, *d_features, *d_sources, *d_weights)


def _chain_gradients(
    runs: Sequence[ChainRun],
    gradients: Sequence[Tensor],
    multipliers: Sequence[float],
    sources: Sequence[Tensor | None],
    needs_weights: Sequence[bool],
) -> tuple[list[ChainGradients], list[Tensor | None]]:
    """The gradients of every chain, and those of the sources that are not None."""
    found: dict[int, ChainGradients] = {}
    shares = parallel.shares([run.chain.cost for run in runs])
    # Each share adds up the sources' gradients by itself, and always in the same order.
    parts: list[dict[int, Tensor]] = [{} for _ in shares]

    def compute(share: Sequence[int], part: dict[int, Tensor]) -> None:
        for index in share:
            run = runs[index]
            source = sources[run.chain.source]
            if source is not None and run.chain.source not in part:
                part[run.chain.source] = torch.zeros_like(source)
            found[index] = run.backward(
                gradients[run.chain.target],
                multipliers[index],
                part.get(run.chain.source),
                needs_weights=needs_weights[index],
            )

    parallel.together(
        [
            lambda share=share, part=part: compute(share, part)
            for share, part in zip(shares, parts, strict=True)
        ]
    )
    d_sources: list[Tensor | None] = []
    for index in range(len(sources)):
        of_source = [part[index] for part in parts if index in part]
        for other in of_source[1:]:
            of_source[0] += other
        d_sources.append(of_source[0] if of_source else None)
    return [found[index] for index in range(len(runs))], d_sources


def _runs(
    form: Form, images: int, sources: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[ChainRun]:
    return [
        ChainRun(chain, Lanes(sources[chain.source], images), of_chain)
        for chain, of_chain in zip(form.chains, _by_chain(form, weights), strict=True)
    ]


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
