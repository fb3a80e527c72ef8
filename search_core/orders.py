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
from search_core.supernet import Supernet

PERTURBATION = 0.01
"""Times the direction of unit length: how far the second order moves the weights."""


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
        loss = _loss(network, validation)
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
    xi = float(weight_optimizer.param_groups[0]["lr"])
    saved = [weight.detach().clone() for weight in weights]
    with frozen(alphas):
        steepest = _gradients(_loss(network, train), weights)
    ahead = one_step_ahead(weight_optimizer, weights, steepest)
    try:
        assign(weights, ahead)
        loss = _loss(network, validation)
        gradients = _gradients(loss, [*alphas, *weights])
        alpha_gradients, direction = gradients[: len(alphas)], gradients[len(alphas) :]
        norm = float(torch.stack([part.norm() for part in direction]).norm())
        if norm == 0:  # w' is stationary: there is nothing to correct
            return ArchitectureGradient(loss.detach(), alpha_gradients)
        epsilon = PERTURBATION / norm
        with frozen(weights):
            assign(weights, [w + epsilon * d for w, d in zip(saved, direction, strict=True)])
            plus = _gradients(_loss(network, train), alphas)
            assign(weights, [w - epsilon * d for w, d in zip(saved, direction, strict=True)])
            minus = _gradients(_loss(network, train), alphas)
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


def _loss(network: Supernet, batch: LabelledImages) -> Tensor:
    return functional.cross_entropy(network(batch.images_nchw), batch.labels_n)


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    # Weights that a network skips have no part in the loss.
    return torch.autograd.grad(loss, parameters, materialize_grads=True)


def one_step_ahead(
    optimizer: Optimizer, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """The weights after one SGD step without clipping, as the unrolled loss is defined.

    Args:
        optimizer: An SGD with one parameter group; it is not changed.
        weights: Its parameters.
        gradients: Of the weights.
    """
    group = optimizer.param_groups[0]
    rate, momentum, decay = float(group["lr"]), group["momentum"], group["weight_decay"]
    ahead = []
    for weight, gradient in zip(weights, gradients, strict=True):
        step = gradient + decay * weight.detach()
        velocity = optimizer.state[weight].get("momentum_buffer") if momentum else None
        if velocity is not None:  # there is none before the first step
            step = step + momentum * velocity
        ahead.append(weight.detach() - rate * step)
    return ahead


@torch.no_grad()
def assign(weights: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Sets weights in place."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
