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
        weights: Parameters, buffers, or what has been computed of them.

    Returns:
        [k, ...]; not a copy where they could be brought together.
    """
    return view_of(weights) if bring_together(weights) else torch.stack(list(weights))


def bring_together(weights: Sequence[Tensor]) -> bool:
    """Moves weights into one storage, where that is worth it.

    Args:
        weights: As for `beside`.

    Returns:
        Whether they lie together.
    """
    if not is_movable(weights[0]) or not all(_is_own(each) for each in weights):
        return False
    # Never in evaluation: a step that has been captured knows where everything is.
    if torch.is_grad_enabled() and not are_adjacent(weights) and can_be_moved(weights):
        move_together(weights)
    return are_adjacent(weights)


def is_movable(weight: Tensor) -> bool:
    """Whether it lies where a copy of many weights costs more than it does on a CPU.

    Args:
        weight: One of them.
    """
    return weight.is_cuda


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
    """Brings parameters or buffers into one storage.

    Args:
        weights: They have the same shape.
    """
    together = torch.stack([each.detach() for each in weights])
    for each, part in zip(weights, together, strict=True):
        each.data = part


def _is_own(weight: Tensor) -> bool:
    """Whether a module holds it: a parameter, or a buffer."""
    is_held = type(weight) is nn.Parameter or (type(weight) is Tensor and not weight.requires_grad)
    return is_held and weight.is_contiguous()


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
