"""First and second order for several networks at once; see `search_core.orders`.

The networks share no value, so the gradient of the sum of their losses holds each one's own.

Legend: n images, s stacked networks, k classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from search_core.data import LabelledImages
from search_core.orders import PERTURBATION, assign, frozen, one_step_ahead
from search_core.precision import in_full
from search_core.stacking.networks import images_of
from search_core.stacking.supernet import StackedSupernet


@dataclass(frozen=True)
class StackedBatch:
    """A batch for each network.

    Attributes:
        images: [n, s * c, h, w].
        labels_ns: [n, s].
    """

    images: Tensor
    labels_ns: Tensor

    @classmethod
    def of(cls, batches: Sequence[LabelledImages]) -> "StackedBatch":
        """Puts the networks' batches, all of one size, side by side."""
        return cls(
            images_of([batch.images_nchw for batch in batches]),
            torch.stack([batch.labels_n for batch in batches], dim=1),
        )


class StackedGradient(NamedTuple):
    """What an order computes.

    Attributes:
        losses_s: Validation losses where the gradients were taken.
        gradients: One for each of the alphas, with s in front.
    """

    losses_s: Tensor
    gradients: Sequence[Tensor]


StackedOrder = Callable[[StackedSupernet, Optimizer, StackedBatch, StackedBatch], StackedGradient]
"""From network, weight optimizer, training and validation batches to the alphas' gradients."""


def first_order(
    network: StackedSupernet,
    weight_optimizer: Optimizer,
    train: StackedBatch,
    validation: StackedBatch,
) -> StackedGradient:
    """See `search_core.orders.first_order`."""
    with frozen(network.weight_parameters()):
        losses_s = losses(network(validation.images), validation)
        gradients = torch.autograd.grad(losses_s.sum(), network.architecture_parameters())
    return StackedGradient(losses_s.detach(), gradients)


def second_order(
    network: StackedSupernet,
    weight_optimizer: Optimizer,
    train: StackedBatch,
    validation: StackedBatch,
) -> StackedGradient:
    """See `search_core.orders.second_order`: each network has a perturbation of its own size."""
    weights = network.weight_parameters()
    alphas = network.architecture_parameters()
    xi = float(weight_optimizer.param_groups[0]["lr"])
    saved = [weight.detach().clone() for weight in weights]

    def gradients_of(batch: StackedBatch, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        loss = losses(network(batch.images), batch).sum()
        return torch.autograd.grad(loss, parameters, materialize_grads=True)

    with frozen(alphas):
        steepest = gradients_of(train, weights)
    try:
        assign(weights, one_step_ahead(weight_optimizer, weights, steepest))
        losses_s = losses(network(validation.images), validation)
        gradients = torch.autograd.grad(losses_s.sum(), [*alphas, *weights], materialize_grads=True)
        losses_s = losses_s.detach()  # what is kept for its gradient is not needed any more
        alpha_gradients, direction = gradients[: len(alphas)], gradients[len(alphas) :]
        norms_s = norms(direction)
        # Where w' is stationary there is nothing to correct: both sides are then the same.
        epsilons_s = PERTURBATION / norms_s.where(norms_s != 0, 1.0)
        # TF32 has a fraction of ten bits, which such a difference is less than.
        with frozen(weights), in_full(norms_s.device):
            moves = [along(epsilons_s, part) for part in direction]
            assign(weights, [w + move for w, move in zip(saved, moves, strict=True)])
            plus = gradients_of(train, alphas)
            assign(weights, [w - move for w, move in zip(saved, moves, strict=True)])
            minus = gradients_of(train, alphas)
    finally:
        assign(weights, saved)
    corrected = [
        gradient - along(xi / (2 * epsilons_s), above - below)
        for gradient, above, below in zip(alpha_gradients, plus, minus, strict=True)
    ]
    return StackedGradient(losses_s, corrected)


ORDERS: dict[str, StackedOrder] = {"first": first_order, "second": second_order}
"""The strategies by the name that a spec uses."""


def losses(logits_nsk: Tensor, batch: StackedBatch) -> Tensor:
    """The mean cross-entropy of each network on its own images, [s]."""
    losses_ns = functional.cross_entropy(
        logits_nsk.flatten(0, 1), batch.labels_ns.flatten(), reduction="none"
    )
    return losses_ns.view(batch.labels_ns.shape).mean(dim=0)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of each network's share of tensors that have s in front, [s]."""
    flat = torch.cat([each.flatten(1) for each in tensors], dim=1)
    norms_s: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms_s


def along(factors_s: Tensor, tensor: Tensor) -> Tensor:
    """Each network's share of a tensor that has s in front, times its own factor."""
    return factors_s.view(-1, *[1] * (tensor.dim() - 1)) * tensor
