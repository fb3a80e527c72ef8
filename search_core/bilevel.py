"""One step of the bilevel optimisation: the alphas first, then the weights (arXiv 1806.09055).

The architecture step leaves nothing behind but new alphas. Weights that the second order moves are
put back bit by bit, and no forward pass of it, at the real weights or at virtual ones, touches the
running statistics of the batch normalisations: those come from the training half alone, at the
weights that the network really had.

Legend: n images, c channels, h height, w width, k classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, Optimizer

from search_core.errors import DivergedError
from search_core.spec.search import AlgorithmSpec, TrainingSpec
from search_core.supernet import Supernet

_ADAM_BETAS = (0.5, 0.999)
_PERTURBATION = 0.01


class Batch(NamedTuple):
    """Images and their labels.

    Attributes:
        images_nchw: The images.
        labels_n: The classes, int64.
    """

    images_nchw: Tensor
    labels_n: Tensor


class ArchitectureGradient(NamedTuple):
    """What an order computes.

    Attributes:
        loss: Validation loss where the gradient was taken; a scalar.
        gradients: One for each of the alphas.
    """

    loss: Tensor
    gradients: Sequence[Tensor]


@dataclass(frozen=True)
class BatchResult:
    """What one step measured on its training batch, before the weights moved.

    Attributes:
        loss: Mean training loss.
        num_correct: Images classified right.
    """

    loss: float
    num_correct: int


Order = Callable[[Supernet, Optimizer, Batch, Batch], ArchitectureGradient]
"""From network, weight optimizer, training and validation batch to the alphas' gradient."""


def first_order(
    network: Supernet,
    weight_optimizer: Optimizer,  # noqa: ARG001 - an order's signature
    train: Batch,  # noqa: ARG001
    validation: Batch,
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
    loss = _loss(network, validation)
    # Asking for the alphas alone spares the gradients of all the weights.
    gradients = torch.autograd.grad(loss, network.architecture_parameters())
    return ArchitectureGradient(loss.detach(), gradients)


def second_order(
    network: Supernet, weight_optimizer: Optimizer, train: Batch, validation: Batch
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
    ahead = _one_step_ahead(weight_optimizer, weights, _gradients(_loss(network, train), weights))
    try:
        _assign(weights, ahead)
        loss = _loss(network, validation)
        gradients = _gradients(loss, [*alphas, *weights])
        alpha_gradients, direction = gradients[: len(alphas)], gradients[len(alphas) :]
        norm = float(torch.stack([part.norm() for part in direction]).norm())
        if norm == 0:  # w' is stationary: there is nothing to correct
            return ArchitectureGradient(loss.detach(), alpha_gradients)
        epsilon = _PERTURBATION / norm
        _assign(weights, [w + epsilon * d for w, d in zip(saved, direction, strict=True)])
        plus = _gradients(_loss(network, train), alphas)
        _assign(weights, [w - epsilon * d for w, d in zip(saved, direction, strict=True)])
        minus = _gradients(_loss(network, train), alphas)
    finally:
        _assign(weights, saved)
    corrected = [
        gradient - xi * (above - below) / (2 * epsilon)
        for gradient, above, below in zip(alpha_gradients, plus, minus, strict=True)
    ]
    return ArchitectureGradient(loss.detach(), corrected)


ORDERS: dict[str, Order] = {"first": first_order, "second": second_order}
"""The strategies by the name that a spec uses."""


class BilevelStep:
    """Trains the alphas on a validation batch, then the weights on a training batch.

    Args:
        network: The network, already on its device.
        algorithm: Order, and the alphas' learning rate and weight decay.
        training: The weights' learning rate, momentum, weight decay and largest gradient norm.

    Attributes:
        weight_optimizer: SGD over the weights.
        architecture_optimizer: Adam over the alphas, betas 0.5 and 0.999.
    """

    def __init__(self, network: Supernet, algorithm: AlgorithmSpec, training: TrainingSpec) -> None:
        self.network = network
        self.order = ORDERS[algorithm.order]
        self.gradient_clip = training.gradient_clip
        self.weight_optimizer = SGD(
            network.weight_parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
        self.architecture_optimizer = Adam(
            network.architecture_parameters(),
            lr=algorithm.architecture_learning_rate,
            betas=_ADAM_BETAS,
            weight_decay=algorithm.architecture_weight_decay,
        )

    def __call__(self, train: Batch, validation: Batch) -> BatchResult:
        """Makes one step of each.

        Args:
            train: The batch of the weights' half.
            validation: The batch of the alphas' half.

        Returns:
            Loss and hits on the training batch.

        Raises:
            DivergedError: A loss or a gradient is not finite. Nothing has been trained on it.
        """
        self.network.train()
        self._train_alphas(train, validation)
        return self._train_weights(train)

    def _train_alphas(self, train: Batch, validation: Batch) -> None:
        with _statistics_kept(self.network):
            loss, gradients = self.order(self.network, self.weight_optimizer, train, validation)
        _check_finite("the validation loss", float(loss))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        _check_finite("the norm of the alphas' gradient", float(norm))
        alphas = self.network.architecture_parameters()
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad()

    def _train_weights(self, train: Batch) -> BatchResult:
        weights = self.network.weight_parameters()
        logits_nk = self.network(train.images_nchw)
        loss = functional.cross_entropy(logits_nk, train.labels_n)
        value = float(loss.detach())
        _check_finite("the training loss", value)
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        norm = nn.utils.clip_grad_norm_(weights, self.gradient_clip)
        _check_finite("the norm of the weights' gradient", float(norm))
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        num_correct = int((logits_nk.argmax(dim=1) == train.labels_n).sum())
        return BatchResult(value, num_correct)


def _loss(network: Supernet, batch: Batch) -> Tensor:
    return functional.cross_entropy(network(batch.images_nchw), batch.labels_n)


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters)


def _one_step_ahead(
    optimizer: Optimizer, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """The weights after one SGD step without clipping, as the unrolled loss is defined."""
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
def _assign(weights: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Lets batch normalisations use each batch's own statistics without recording them."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, was_tracked in zip(norms, tracked, strict=True):
            norm.track_running_stats = was_tracked


def _check_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise DivergedError(f"{what} is {value}")
