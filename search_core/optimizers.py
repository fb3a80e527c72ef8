"""The two optimizers of a search: SGD for the weights, Adam for the alphas (arXiv 1806.09055, 3.1).

A step that is captured repeats what it was captured with: its optimizers must keep counts and
learning rates on the device, and be single kernels. Their states are those of the usual ones.
"""

from collections.abc import Sequence
from inspect import unwrap
from typing import Final

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from search_core.spec.algorithm import AlgorithmSpec
from search_core.spec.search import TrainingSpec

ADAM_BETAS: Final = (0.5, 0.999)


class _WithoutCompiler(Optimizer):
    """The methods that PyTorch wraps to hide them from its compiler, unwrapped.

    The wrapping loads the compiler when an optimizer is first used, though nothing is compiled
    here: seconds in every process that trains.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)


class SGD(_WithoutCompiler, optim.SGD):
    """PyTorch's SGD."""

    step = torch.no_grad()(unwrap(optim.SGD.step))


class Adam(_WithoutCompiler, optim.Adam):
    """PyTorch's Adam."""

    step = torch.no_grad()(unwrap(optim.Adam.step))


def for_weights(
    weights: Sequence[nn.Parameter], training: TrainingSpec, *, capturable: bool
) -> SGD:
    """SGD with momentum.

    Args:
        weights: On their device, each of which gets a gradient in every step if capturable.
        training: Learning rate, momentum and weight decay.
        capturable: Whether steps are to be captured.
    """
    optimizer = SGD(
        weights,
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        fused=capturable or None,
    )
    if capturable:
        [group] = optimizer.param_groups
        group["lr"] = torch.tensor(training.learning_rate, device=weights[0].device)
    return optimizer


def for_alphas(
    alphas: Sequence[nn.Parameter], algorithm: AlgorithmSpec, *, capturable: bool
) -> Adam:
    """Adam with betas 0.5 and 0.999, and a learning rate that never changes.

    Args:
        alphas: On their device.
        algorithm: Learning rate and weight decay.
        capturable: Whether steps are to be captured.
    """
    return Adam(
        alphas,
        lr=algorithm.architecture_learning_rate,
        betas=ADAM_BETAS,
        weight_decay=algorithm.architecture_weight_decay,
        capturable=capturable,
        fused=capturable or None,
    )


def laid_out_like(values: Tensor, weight: Tensor) -> Tensor:
    """Values that lie in memory as a weight does: a fused optimizer reads them so.

    Args:
        values: A gradient or a moment of the weight.
        weight: The weight.

    Returns:
        The values; copied where they lie otherwise.
    """
    if values.stride() == weight.stride():
        return values
    return torch.empty_like(weight).copy_(values)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters, where it is a tensor in its place.

    Args:
        optimizer: The optimizer.
        rate: The learning rate.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
