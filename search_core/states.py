"""States as plain values: what a checkpoint holds and how an optimizer takes it back."""

from typing import Any

import torch
from torch.optim import Optimizer

from search_core.errors import CheckpointError
from search_core.optimizers import laid_out_like


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

    A capturable optimizer keeps its counts on a GPU, another one on the CPU, and a fused one wants
    moments laid out like their parameters. Each takes the state of the other.

    Args:
        optimizer: Over the same parameters in the same order as the one that was saved.
        state: The `state` of its `state_dict`.
    """
    groups = optimizer.state_dict()["param_groups"]
    # PyTorch brings a count to the device of an optimizer that wants it there, but never back.
    state = {
        index: {**each, "step": each["step"].cpu()} if "step" in each else each
        for index, each in state.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape != ():
                moments[name] = laid_out_like(value, parameter)


def origin(version: int, settings: str, seed: int) -> dict[str, Any]:
    """The part of a state that says whose it is.

    Args:
        version: Of the state's form.
        settings: All of the spec that changes numbers.
        seed: The trial's seed.
    """
    return {"version": version, "settings": settings, "seed": seed}


def check_origin(state: dict[str, Any], version: int, settings: str, seed: int) -> None:
    """Refuses a state that another run wrote.

    Args:
        state: The state, with what `origin` put into it.
        version: The version that this release writes.
        settings: What the run that is to go on has.
        seed: Its seed.

    Raises:
        CheckpointError: They are not the same.
    """
    if state.get("version") != version:
        raise CheckpointError(
            f"a state of version {state.get('version')}; this release reads {version}"
        )
    if state["seed"] != seed:
        raise CheckpointError(
            f"the state of a trial with seed {state['seed']}, but this one has {seed}"
        )
    if state["settings"] != settings:
        raise CheckpointError(
            f"the state of another spec: saved was {state['settings']}, and this one has {settings}"
        )
