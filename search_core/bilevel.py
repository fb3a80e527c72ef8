"""One step of the bilevel optimisation: the alphas first, then the weights (arXiv 1806.09055).

The architecture step leaves nothing behind but new alphas. Weights that the second order moves are
put back bit by bit, and no forward pass of it, at the real weights or at virtual ones, touches the
running statistics of the batch normalisations: those come from the training half alone, at the
weights that the network really had.

Legend: n images, k classes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam

from search_core.cuboid_supernet import CuboidSupernet
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.orders import ORDERS, Order, frozen
from search_core.path_sampling import PathSampler
from search_core.spec.algorithm import AlgorithmSpec
from search_core.spec.search import TrainingSpec
from search_core.supernet import Supernet

ADAM_BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class BatchResult:
    """What one step measured on its training batch, before the weights moved.

    Attributes:
        loss: Mean training loss.
        num_correct: Images classified right.
    """

    loss: float
    num_correct: int


class BilevelStep:
    """Trains the alphas on a validation batch, then the weights on a training batch.

    Args:
        network: The network, already on its device.
        algorithm: Order, and the alphas' learning rate and weight decay.
        training: The weights' learning rate, momentum, weight decay and largest gradient norm.
        path_generator: Draws the paths of a search that samples them; others need none.

    Attributes:
        weight_optimizer: SGD over the weights.
        architecture_optimizer: Adam over the alphas, betas 0.5 and 0.999.
    """

    def __init__(
        self,
        network: Supernet,
        algorithm: AlgorithmSpec,
        training: TrainingSpec,
        path_generator: torch.Generator | None = None,
    ) -> None:
        self.network = network
        self.order: Order = ORDERS[algorithm.order]
        self._cost_weight = algorithm.cost_weight
        self._sampler: PathSampler | None = None
        if algorithm.sampling is not None:
            assert isinstance(network, CuboidSupernet)
            assert path_generator is not None
            network.trained_by_paths = True
            self._sampler = PathSampler(network, algorithm.sampling, path_generator)
            if algorithm.sampling.alphas == "paths":
                self.order = self._sampler.order
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
            betas=ADAM_BETAS,
            weight_decay=algorithm.architecture_weight_decay,
        )

    def __call__(
        self, train: LabelledImages, validation: LabelledImages, *, alphas: bool = True
    ) -> BatchResult:
        """Makes one step of each.

        Args:
            train: The batch of the weights' half.
            validation: The batch of the alphas' half.
            alphas: Whether the alphas are trained, and not the weights only.

        Returns:
            Loss and hits on the training batch.

        Raises:
            DivergedError: A loss or a gradient is not finite. Nothing has been trained on it.
        """
        self.network.train()
        if alphas:
            self.train_alphas(train, validation)
        return self.train_weights(train)

    def train_alphas(self, train: LabelledImages, validation: LabelledImages) -> None:
        """Makes the first half of a step.

        Args:
            train: As for the whole step.
            validation: Likewise.

        Raises:
            DivergedError: The loss or its gradient is not finite. The alphas are as they were.
        """
        with statistics_kept(self.network):
            loss, gradients = self.order(self.network, self.weight_optimizer, train, validation)
        _check_finite("the validation loss", float(loss))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        _check_finite("the norm of the alphas' gradient", float(norm))
        alphas = self.network.architecture_parameters()
        if self._cost_weight:
            penalty = self._cost_weight * self.network.expected_cost()
            of_cost = torch.autograd.grad(penalty, alphas)
            gradients = [one + other for one, other in zip(gradients, of_cost, strict=True)]
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad()

    def train_weights(self, train: LabelledImages) -> BatchResult:
        """Makes the second half of a step.

        Args:
            train: As for the whole step.

        Returns:
            Loss and hits.

        Raises:
            DivergedError: The loss or its gradient is not finite. The weights are as they were.
        """
        weights = self.network.weight_parameters()
        for weight in weights:
            weight.grad = None
        if self._sampler is None:
            with frozen(self.network.architecture_parameters()):
                result = self._accumulate(self.network(train.images_nchw), train, 1.0)
        else:
            result = self._accumulate_paths(self._sampler, train)
        # What took no part, on no path or skipped, has no gradient: it is left as it is, without
        # decay too.
        norm = nn.utils.clip_grad_norm_(weights, self.gradient_clip)
        _check_finite("the norm of the weights' gradient", float(norm))
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        return result

    def _accumulate_paths(self, sampler: PathSampler, train: LabelledImages) -> BatchResult:
        paths = sampler.paths_to_train()
        results = [
            self._accumulate(
                sampler.network.path_logits(train.images_nchw, path), train, 1 / len(paths)
            )
            for path in paths
        ]
        return BatchResult(
            sum(each.loss for each in results) / len(paths),
            round(sum(each.num_correct for each in results) / len(paths)),
        )

    def _accumulate(self, logits_nk: Tensor, train: LabelledImages, share: float) -> BatchResult:
        """Adds a share of the loss's gradient to the weights'; alphas get none."""
        weights = self.network.weight_parameters()
        loss = functional.cross_entropy(logits_nk, train.labels_n)
        value = float(loss.detach())
        _check_finite("the training loss", value)
        gradients = torch.autograd.grad(share * loss, weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
        num_correct = int((logits_nk.argmax(dim=1) == train.labels_n).sum())
        return BatchResult(value, num_correct)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Lets batch normalisations use each batch's own statistics without recording them.

    Args:
        network: It is in training mode.
    """
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
