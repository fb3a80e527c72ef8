"""The sum of many operations as one differentiable function.

Written out by hand: the last normalisation of each operation, its multiplier and the sum become one
pass over memory, and gradients that nobody asked for are not computed.

Legend: t terms (the features, then the chains).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search_core.relaxation.forms import Form
from search_core.relaxation.lanes import Lanes
from search_core.relaxation.passes import Inputs, Needs
from search_core.relaxation.program import Program


def mix(
    program: Program,
    multipliers_t: Tensor,
    features: Sequence[Lanes],
    sources: Sequence[Lanes],
    weights: Sequence[Tensor],
    *,
    measures: bool = True,
) -> tuple[dict[int, Lanes], list[tuple[Tensor, Tensor]]]:
    """Sums of features and of chains, each times its multiplier.

    Args:
        program: Computes them.
        multipliers_t: Of the features, then of the chains.
        features: In the order of the form.
        sources: Likewise.
        weights: Of every stage of every chain.
        measures: Whether anybody records what normalisations measure.

    Returns:
        The targets, and mean and biased variance of every stage's output, if they are recorded.
    """
    measured: list[tuple[Tensor, Tensor]] = []
    images = (features or sources)[0].images
    known = {id(each.values): index for index, each in enumerate(sources)}
    totals = _Mix.apply(
        program,
        [known.get(id(each.values)) for each in features],
        measured if measures else None,
        multipliers_t,
        *(each.values for each in features),
        *(each.values for each in sources),
        *weights,
    )
    return {
        target: Lanes(total, images) for target, total in zip(program.targets, totals, strict=True)
    }, measured


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        program: Program,
        same: Sequence[int | None],
        measured: list[tuple[Tensor, Tensor]] | None,
        multipliers_t: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.program, ctx.same = program, same
        tensors = tuple(tensor.contiguous() for tensor in tensors)
        totals, kept = program.forward(
            multipliers_t.tolist(), Inputs(*_divided(program.form, tensors), same)
        )
        if measured is not None:
            measured += program.measured(kept)
        ctx.kept = kept
        ctx.save_for_backward(multipliers_t, *tensors)
        # Else all totals would seem to depend on whatever any of them depends on, and what reads
        # them would find gradients that nobody asked for.
        needs_multipliers, *needs = ctx.needs_input_grad[3:]
        needed = program.differentiable(needs_multipliers, Needs(*_divided(program.form, needs)))
        ctx.mark_non_differentiable(
            *(totals[target] for target in program.targets if target not in needed)
        )
        return tuple(totals[target] for target in program.targets)

    @staticmethod
    def backward(ctx: Any, *d_totals: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # `once_differentiable` would say so only if nobody asked for chosen inputs' gradients.
            raise RuntimeError(
                "a planned relaxation has no second derivative; choose the relaxation 'plain'"
            )
        program: Program = ctx.program
        multipliers_t, *tensors = ctx.saved_tensors
        needs_multipliers, *needs = ctx.needs_input_grad[3:]
        gradients = program.backward(
            {
                target: d_total.contiguous()
                for target, d_total in zip(program.targets, d_totals, strict=True)
            },
            ctx.kept,
            multipliers_t.tolist(),
            Inputs(*_divided(program.form, tensors), ctx.same),
            Needs(*_divided(program.form, needs)),
        )
        d_multipliers_t = None
        if needs_multipliers:
            d_multipliers_t = multipliers_t.new_tensor(gradients.multipliers)
        return (
            None,
            None,
            None,
            d_multipliers_t,
            *gradients.features,
            *gradients.sources,
            *gradients.weights,
        )


def _divided(
    form: Form, given: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Features, sources and weights."""
    first = len(form.features)
    second = first + form.num_sources
    return given[:first], given[first:second], given[second:]
