"""How the alphas' gradient is taken: first or second order (arXiv 1806.09055, section 2.3).

Legend: n images, c channels, h height, w width, k classes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from search_core.data import LabelledImages
from search_core.precision import in_full, logits
from search_core.supernet import Supernet

PERTURBATION = 0.01
"""Times the direction of unit length: how far the second order moves the weights."""
_EXACT = "float32"
"""Weights so little apart are the same ones in half precision."""


class ArchitectureGradient(NamedTuple):
    """What an order computes.

    Attributes:
        loss: Validation loss where the gradient was taken; a scalar.
        gradients: One for each of the alphas.
    """

    loss: Tensor
    gradients: Sequence[Tensor]


Order = Callable[[Supernet, Optimizer, LabelledImages, LabelledImages], ArchitectureGradient]
"""From network, weight optimizer, training and validation batch to the alphas' gradient."""


def first_order(
    network: Supernet,
    weight_optimizer: Optimizer,
    train: LabelledImages,
    validation: LabelledImages,
) -> ArchitectureGradient:
    """The gradient of the validation loss at the current weights (section 2.3, xi = 0).

    Args:
        network: The network.
        weight_optimizer: Not used.
        train: Not used.
        validation: The batch of the alphas' half.

    Returns:
        The loss and the gradient of every alpha.
    """
    with frozen(network.weight_parameters()):
        loss = _loss(network, validation, network.precision)
        gradients = torch.autograd.grad(loss, network.architecture_parameters())
    return ArchitectureGradient(loss.detach(), gradients)


def second_order(
    network: Supernet,
    weight_optimizer: Optimizer,
    train: LabelledImages,
    validation: LabelledImages,
) -> ArchitectureGradient:
    """The gradient of the validation loss one weight step ahead (section 2.3, equations 6 to 8).

    With w' = w - xi (mu v + dL_train/dw + lambda w), where xi is the learning rate, v the momentum
    buffer, mu the momentum and lambda the weight decay, it is dL_val/dalpha at w' minus xi times
    the mixed second derivative, taken by a central difference along dL_val/dw'.

    Args:
        network: The network. Its weights are moved and put back.
        weight_optimizer: Gives xi, mu, lambda and v; an SGD with one parameter group.
        train: The batch that the weights are about to be trained on.
        validation: The batch of the alphas' half.

    Returns:
        The loss at w' and the gradient of every alpha.
    """
    weights = network.weight_parameters()
    alphas = network.architecture_parameters()
    xi = weight_optimizer.param_groups[0]["lr"]
    saved = [torch.empty_like(weight) for weight in weights]
    assign(saved, weights)
    with frozen(alphas):
        steepest = _gradients(_loss(network, train, network.precision), weights)
    ahead = one_step_ahead(weight_optimizer, weights, steepest)
    try:
        assign(weights, ahead)
        loss = _loss(network, validation, network.precision)
        gradients = _gradients(loss, [*alphas, *weights])
        loss = loss.detach()  # what is kept for its gradient would be held through two more passes
        alpha_gradients, direction = gradients[: len(alphas)], gradients[len(alphas) :]
        norm = torch.stack(torch._foreach_norm(direction)).norm()
        # Where w' is stationary the direction is 0, and so is the difference. Nobody asks whether
        # it is: a GPU would have to come to the end of its queue to answer.
        epsilon = (PERTURBATION / torch.where(norm > 0, norm, 1.0).double()).to(norm.dtype)
        # TF32 has a fraction of ten bits, which such a difference is less than, too.
        with frozen(weights), in_full(norm.device):
            shift = torch._foreach_mul(direction, epsilon)
            assign(weights, torch._foreach_add(saved, shift))
            plus = _gradients(_loss(network, train, _EXACT), alphas)
            assign(weights, torch._foreach_sub(saved, shift))
            minus = _gradients(_loss(network, train, _EXACT), alphas)
    finally:
        assign(weights, saved)
    corrected = [
        gradient - xi * (above - below) / (2 * epsilon)
        for gradient, above, below in zip(alpha_gradients, plus, minus, strict=True)
    ]
    return ArchitectureGradient(loss.detach(), corrected)


ORDERS: dict[str, Order] = {"first": first_order, "second": second_order}
"""The strategies by the name that a spec uses."""


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Spares the gradients of some parameters in what is computed meanwhile.

    Asking autograd for the others alone would not spare those of functions written by hand.

    Args:
        parameters: They require gradients.
    """
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _loss(network: Supernet, batch: LabelledImages, precision: str) -> Tensor:
    logits_nk = logits(network, batch.images_nchw, precision)
    return functional.cross_entropy(logits_nk, batch.labels_n)


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    # Weights that a network skips have no part in the loss.
    return torch.autograd.grad(loss, parameters, materialize_grads=True)


@torch.no_grad()
def one_step_ahead(
    optimizer: Optimizer, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The weights after one SGD step without clipping, as the unrolled loss is defined.

    Args:
        optimizer: An SGD with one parameter group; it is not changed.
        weights: Its parameters.
        gradients: Of the weights.
    """
    group = optimizer.param_groups[0]
    present: list[Tensor] = list(weights)
    steps = torch._foreach_add(list(gradients), present, alpha=group["weight_decay"])
    velocities = [optimizer.state[weight].get("momentum_buffer") for weight in weights]
    if group["momentum"] and any(each is not None for each in velocities):
        # There is none before a weight's first step.
        known = [
            torch.zeros_like(weight) if each is None else each
            for weight, each in zip(weights, velocities, strict=True)
        ]
        torch._foreach_add_(steps, known, alpha=group["momentum"])
    # A rate that is to be captured is a tensor, which is no `alpha`.
    torch._foreach_mul_(steps, group["lr"])
    return torch._foreach_sub(present, steps)


@torch.no_grad()
def assign(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Sets tensors, such as weights, in place."""
    torch._foreach_copy_(list(tensors), list(values))
