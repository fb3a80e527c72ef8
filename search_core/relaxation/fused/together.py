"""Several differentiable functions that do not depend on each other, as one.

Forward as well as backward they may run at the same time (`streams`). To automatic differentiation
they are one function, whose gradients are taken as soon as those of all results are known. What
several of them read has its gradients added up at once, where automatic differentiation would add
them up two by two.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from search_core.relaxation.fused.adding import added
from search_core.relaxation.fused.streams import Task, at_once

ResultT = TypeVar("ResultT")


class Call(NamedTuple, Generic[ResultT]):
    """A function with what it is called with.

    Attributes:
        function: The function. It reads gradients of results that it is given, None for those that
            nobody asks for, and is not called where there is none.
        arguments: Of it.
        finish: Makes the result of what it returns, without launching anything.
    """

    function: type[torch.autograd.Function]
    arguments: tuple[Any, ...]
    finish: Callable[[Any], ResultT]


def run(calls: Sequence[Call[ResultT]]) -> list[ResultT]:
    """The results of calls that do not depend on each other.

    Args:
        calls: One or more.
    """
    if len(calls) == 1:
        [call] = calls
        return [call.finish(call.function.apply(*call.arguments))]
    arguments: list[Any] = []
    places: dict[int, int] = {}
    for each in (each for call in calls for each in call.arguments):
        if id(each) not in places:
            places[id(each)] = len(arguments)
            arguments.append(each)
    layout = _Layout(
        [call.function for call in calls],
        [[places[id(each)] for each in call.arguments] for call in calls],
        [],
    )
    made = _Together.apply(layout, *arguments)
    return [
        call.finish(made[first] if is_single else made[first:last])
        for call, (first, last, is_single) in zip(calls, layout.results, strict=True)
    ]


class _Layout(NamedTuple):
    """Where each function's arguments and results are among those of all.

    Attributes:
        functions: The functions.
        arguments: Of each, where its arguments are; what several read is there once.
        results: The first result of each, the one behind its last, and whether it is no tuple;
            known when they have been called.
    """

    functions: list[type[torch.autograd.Function]]
    arguments: list[list[int]]
    results: list[tuple[int, int, bool]]


class _Context:
    """What a function keeps for its gradients, within that of all.

    Args:
        needs_input_grad: Of which arguments there will be gradients.

    Attributes:
        needs_input_grad: See above.
        saved_tensors: What it saved, while it is called.
        silent: Results of which there are no gradients.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Tensor | None, ...] = ()
        self.silent: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self.silent = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """There are none made up here anyway."""

    def forget(self) -> None:
        """Lets go of tensors, which automatic differentiation keeps, or does not."""
        self.saved_tensors = self.silent = ()


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layout: _Layout, *arguments: Any) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[1:]
        contexts = [
            _Context(tuple(needs[place] for place in places)) for places in layout.arguments
        ]
        parts = [[arguments[place] for place in places] for places in layout.arguments]
        made = at_once(
            [
                Task(partial(each.forward, context, *part), _size(part))
                for each, context, part in zip(layout.functions, contexts, parts, strict=True)
            ]
        )
        results: list[Tensor | None] = []
        silent: list[Tensor] = []
        for each, context in zip(made, contexts, strict=True):
            first, is_single = len(results), isinstance(each, Tensor)
            results += [each] if is_single else each
            layout.results.append((first, len(results), is_single))
            silent += context.silent
            if not any(context.needs_input_grad):
                # The others' arguments have gradients, so that these results would have them, too.
                silent += [result for result in results[first:] if result is not None]
        ctx.mark_non_differentiable(*silent)
        ctx.set_materialize_grads(False)
        bounds = [0, *accumulate(len(context.saved_tensors) for context in contexts)]
        ctx.save_for_backward(*(each for context in contexts for each in context.saved_tensors))
        for context in contexts:
            context.forget()
        ctx.settings = (layout, contexts, list(pairwise(bounds)))
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *d_results: Tensor | None) -> tuple[Any, ...]:
        layout, contexts, bounds = ctx.settings
        saved = ctx.saved_tensors
        asked = [
            index
            for index, (first, last, _) in enumerate(layout.results)
            if any(each is not None for each in d_results[first:last])
        ]
        for index in asked:
            contexts[index].saved_tensors = saved[slice(*bounds[index])]
        try:
            found = at_once(
                [
                    Task(
                        partial(
                            layout.functions[index].backward,
                            contexts[index],
                            *d_results[slice(*layout.results[index][:2])],
                        ),
                        _size(contexts[index].saved_tensors),
                    )
                    for index in asked
                ]
            )
        finally:
            for context in contexts:
                context.forget()
        shares: dict[int, list[Tensor]] = {}
        for index, each in zip(asked, found, strict=True):
            for place, gradient in zip(layout.arguments[index], each, strict=True):
                if gradient is not None:
                    shares.setdefault(place, []).append(gradient)
        several = [each for each in shares.values() if len(each) > 1]
        sums = iter(at_once([Task(partial(added, each), _size(each)) for each in several]))
        gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for place, each in shares.items():
            gradients[1 + place] = each[0] if len(each) == 1 else next(sums)
        return tuple(gradients)


def _size(values: Sequence[Any]) -> int:
    """How many numbers there are in tensors, which is about how much there is to do."""
    return sum(each.numel() for each in values if isinstance(each, Tensor))
