"""States as plain values: what a checkpoint holds and how an optimizer takes it back."""

from typing import Any

import torch
from torch.optim import Optimizer


def snapshot(value: Any) -> Any:
    """Copies a state, so that later steps do not change it.

    Args:
        value: Tensors, numbers and strings in any nesting of dicts, lists and tuples.

    Returns:
        The same with copied tensors, and lists where tuples were.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(item) for item in value]
    return value


def load_optimizer(optimizer: Optimizer, state: dict[int, Any]) -> None:
    """Restores an optimizer's moments and counts; its settings stay those it was made with.

    Args:
        optimizer: Over the same parameters in the same order as the one that was saved.
        state: The `state` of its `state_dict`.
    """
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
