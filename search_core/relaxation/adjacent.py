"""Weights of many modules as one tensor, without copying them in each pass.

On a GPU they are brought into one storage the first time; each module's parameter is a part of it
from then on, and the same object as before.

Legend: k weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        first = weights[0].detach()
        return first.as_strided((len(weights), *first.shape), (first.numel(), *first.stride()))

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor, ...]:
        # Whoever computed with the view has noticed a change of the first weight only.
        _ = ctx.saved_tensors
        return d_outputs[0].unbind()


def beside(weights: Sequence[Tensor]) -> Tensor:
    """Weights of the same shape side by side.

    Args:
        weights: The weights.

    Returns:
        [k, ...]; not a copy where they are parameters on a GPU.
    """
    if weights[0].is_cuda and all(_is_parameter(each) for each in weights):
        if not are_adjacent(weights) and can_be_moved(weights):
            move_together(weights)
        if are_adjacent(weights):
            return view_of(weights)
    return torch.stack(list(weights))


def are_adjacent(weights: Sequence[Tensor]) -> bool:
    """Whether they lie in one storage, one behind the other.

    Args:
        weights: Contiguous weights of the same shape.
    """
    first = weights[0]
    storage, step = first.untyped_storage(), first.nbytes
    start = first.data_ptr()
    return start + len(weights) * step <= storage.data_ptr() + storage.nbytes() and all(
        each.data_ptr() == start + index * step for index, each in enumerate(weights)
    )


def can_be_moved(weights: Sequence[Tensor]) -> bool:
    """Whether nothing else lies in their storages.

    What has been moved once is not moved again: a captured step knows where it is.

    Args:
        weights: Contiguous weights.
    """
    return len({each.data_ptr() for each in weights}) == len(weights) and all(
        each.untyped_storage().nbytes() == each.nbytes for each in weights
    )


def move_together(weights: Sequence[Tensor]) -> None:
    """Brings parameters into one storage.

    Args:
        weights: Parameters of the same shape.
    """
    together = torch.stack([each.detach() for each in weights])
    for each, part in zip(weights, together, strict=True):
        each.data = part


def _is_parameter(weight: Tensor) -> bool:
    return type(weight) is nn.Parameter and weight.is_contiguous()


def view_of(weights: Sequence[Tensor]) -> Tensor:
    """Adjacent weights as one tensor, through which gradients go to each.

    If one of them is changed between a pass and its gradients, these are refused as PyTorch does;
    where only gradients of something else are asked for, the first one's change alone is noticed.

    Args:
        weights: They are adjacent.

    Returns:
        [k, ...].
    """
    result: Tensor = _Beside.apply(*weights)
    return result
