"""One bilevel step of several networks at once; see `search_core.bilevel`.

Legend: s stacked networks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from search_core import optimizers
from search_core.bilevel import BatchResult, BilevelStep
from search_core.orders import frozen
from search_core.spec.algorithm import AlgorithmSpec
from search_core.spec.search import TrainingSpec
from search_core.stacking.networks import stack_supernets
from search_core.stacking.orders import ORDERS, StackedBatch, along, losses, norms


class NotFiniteError(Exception):
    """A half of a step met a loss or a gradient that is not finite, and trained nothing.

    Attributes:
        of_weights: Whether it was the second half, whose pass has recorded running statistics.
    """

    def __init__(self, *, of_weights: bool) -> None:
        """Says which half."""
        super().__init__("a loss or a gradient of some network of a stack is not finite")
        self.of_weights = of_weights


class StackedStep:
    """Trains the alphas of several networks, then their weights.

    Each network has batches of its own; its gradient is clipped by its own norm. Networks and
    optimizers of the members share their values with the stack: a member's network is trained by
    every step, its optimizers are up to date after `publish`.

    Args:
        members: The networks' own steps, all at the same place of the same spec. Their states are
            where the stack goes on.
        algorithm: The spec's.
        training: The spec's.

    Raises:
        ValueError: There is no stacked form of such networks.
    """

    def __init__(
        self, members: Sequence[BilevelStep], algorithm: AlgorithmSpec, training: TrainingSpec
    ) -> None:
        self._members = members
        self.network = stack_supernets([member.network for member in members])
        self._order = ORDERS[algorithm.order]
        self._cost_weight = algorithm.cost_weight
        self._gradient_clip = training.gradient_clip
        self.weight_optimizer = optimizers.for_weights(
            self.network.weight_parameters(), training, capturable=False
        )
        self.architecture_optimizer = optimizers.for_alphas(
            self.network.architecture_parameters(), algorithm, capturable=False
        )
        for member in members:
            # Without gradients it changes nothing. PyTorch's schedulers warn of optimizers that
            # they have never seen step.
            member.weight_optimizer.zero_grad()
            member.weight_optimizer.step()
        _collect(self.weight_optimizer, [each.weight_optimizer for each in members])
        _collect(self.architecture_optimizer, [each.architecture_optimizer for each in members])

    def begin_epoch(self) -> None:
        """Takes temperature and learning rate from the members, which have come to them."""
        first = self._members[0]
        self.network.temperature = first.network.temperature
        for group in self.weight_optimizer.param_groups:
            group["lr"] = float(first.weight_optimizer.param_groups[0]["lr"])

    def train_alphas(self, train: StackedBatch, validation: StackedBatch) -> None:
        """Makes the first half of a step.

        Args:
            train: The batches of the weights' halves.
            validation: Of the alphas' halves.

        Raises:
            NotFiniteError: The alphas are as they were.
        """
        self.network.train()
        self.network.set_recording(False)
        try:
            losses_s, gradients = self._order(
                self.network, self.weight_optimizer, train, validation
            )
        finally:
            self.network.set_recording(True)
        if not _are_finite(losses_s, norms(gradients)):
            raise NotFiniteError(of_weights=False)
        alphas = self.network.architecture_parameters()
        if self._cost_weight:
            penalty = self._cost_weight * self.network.expected_costs().sum()
            of_cost = torch.autograd.grad(penalty, alphas)
            gradients = [one + other for one, other in zip(gradients, of_cost, strict=True)]
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad()

    def train_weights(self, train: StackedBatch) -> list[BatchResult]:
        """Makes the second half of a step.

        Args:
            train: As for the first.

        Returns:
            Loss and hits of each network.

        Raises:
            NotFiniteError: The weights are as they were.
        """
        self.network.train()
        weights = self.network.weight_parameters()
        with frozen(self.network.architecture_parameters()):
            logits_nsk = self.network(train.images)
            self.network.count_batch()
            losses_s = losses(logits_nsk, train)
            gradients = torch.autograd.grad(losses_s.sum(), weights, allow_unused=True)
        with torch.no_grad():
            norms_s = norms([gradient for gradient in gradients if gradient is not None])
            correct_s = (logits_nsk.argmax(dim=2) == train.labels_ns).sum(dim=0)
            values = torch.stack([losses_s.detach(), norms_s, correct_s.to(losses_s)]).tolist()
            if not all(math.isfinite(value) for row in values for value in row):
                raise NotFiniteError(of_weights=True)
            # As `clip_grad_norm_` does.
            shares_s = (self._gradient_clip / (norms_s + 1e-6)).clamp(max=1.0)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = None if gradient is None else along(shares_s, gradient)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        return [
            BatchResult(loss, round(correct))
            for loss, correct in zip(values[0], values[2], strict=True)
        ]

    def publish(self) -> None:
        """Brings the members' optimizers up to date, which share their moments from then on."""
        _distribute(self.weight_optimizer, [each.weight_optimizer for each in self._members])
        _distribute(
            self.architecture_optimizer, [each.architecture_optimizer for each in self._members]
        )


def _are_finite(*values_s: Tensor) -> bool:
    return all(math.isfinite(value) for value in torch.cat(values_s).tolist())


def _collect(stacked: Optimizer, members: Sequence[Optimizer]) -> None:
    """Gives an optimizer the members' states, side by side."""
    for parameter, own in _parameters(stacked, members):
        states = [member.state.get(each, {}) for member, each in zip(members, own, strict=True)]
        for name, value in states[0].items():
            if value is None:
                continue
            # Members that have come as far have counted as many steps.
            stacked.state[parameter][name] = (
                value.clone() if name == _COUNT else torch.stack([state[name] for state in states])
            )


def _distribute(stacked: Optimizer, members: Sequence[Optimizer]) -> None:
    """Gives each member its share of a state."""
    for parameter, own in _parameters(stacked, members):
        for name, value in stacked.state.get(parameter, {}).items():
            if value is None:
                continue
            for index, (member, each) in enumerate(zip(members, own, strict=True)):
                member.state[each][name] = value.clone() if name == _COUNT else value[index]


def _parameters(
    stacked: Optimizer, members: Sequence[Optimizer]
) -> list[tuple[nn.Parameter, tuple[nn.Parameter, ...]]]:
    """Each parameter of a stack with those of the members."""
    own = zip(*(member.param_groups[0]["params"] for member in members), strict=True)
    return list(zip(stacked.param_groups[0]["params"], own, strict=True))


_COUNT = "step"
