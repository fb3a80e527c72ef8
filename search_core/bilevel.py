"""One step of the bilevel optimisation: the alphas first, then the weights (arXiv 1806.09055).

The architecture step leaves nothing behind but new alphas. Weights that the second order moves are
put back bit by bit, and no forward pass of it, at the real weights or at virtual ones, touches the
running statistics of the batch normalisations: those come from the training half alone, at the
weights that the network really had.

Legend: n images, k classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from search_core import optimizers
from search_core.cuboid_supernet import CuboidSupernet
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.orders import ORDERS, Order, frozen
from search_core.path_sampling import PathSampler
from search_core.precision import logits
from search_core.relaxation_in_use import RelaxationInUse
from search_core.spec.algorithm import AlgorithmSpec
from search_core.spec.search import TrainingSpec
from search_core.supernet import Supernet

Check = Callable[[str, Tensor], None]
"""Looks at a scalar that has to be finite, named in words; it may raise `DivergedError`."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class BatchResult:
    """What one step measured on its training batch, before the weights moved.

    Attributes:
        loss: Mean training loss.
        num_correct: Images classified right.
    """

    loss: float
    num_correct: int


class Measured(NamedTuple):
    """The same on the device, without waiting for it.

    Attributes:
        loss: Mean training loss; a scalar.
        num_correct: Hits; a scalar.
    """

    loss: Tensor
    num_correct: Tensor


class BilevelStep:
    """Trains the alphas on a validation batch, then the weights on a training batch.

    Args:
        network: The network, already on its device.
        algorithm: Order, and the alphas' learning rate and weight decay.
        training: The weights' learning rate, momentum, weight decay and largest gradient norm.
        path_generator: Draws the paths of a search that samples them; others need none.
        relaxation: Of the network, to be given up where it fails; None lets every error through.
        capturable: Whether steps are to be captured; see `search_core.graphs`.

    Attributes:
        weight_optimizer: SGD over the weights.
        architecture_optimizer: Adam over the alphas, betas 0.5 and 0.999.
        check: Looks at losses and norms of gradients before anything is trained on them.
    """

    def __init__(
        self,
        network: Supernet,
        algorithm: AlgorithmSpec,
        training: TrainingSpec,
        path_generator: torch.Generator | None = None,
        relaxation: RelaxationInUse | None = None,
        *,
        capturable: bool = False,
    ) -> None:
        self.network = network
        self._norms = batch_norms(network)
        self._relaxation = relaxation
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
        self.check: Check = check_now
        self._capturable = capturable
        self.weight_optimizer = optimizers.for_weights(
            network.weight_parameters(), training, capturable=capturable
        )
        self.architecture_optimizer = optimizers.for_alphas(
            network.architecture_parameters(), algorithm, capturable=capturable
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
        gradients = self._computed(lambda: self._alpha_gradients(train, validation))
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
        measured = self.descend(train)
        return BatchResult(
            sum(float(each.loss) for each in measured) / len(measured),
            round(sum(int(each.num_correct) for each in measured) / len(measured)),
        )

    def descend(self, train: LabelledImages) -> list[Measured]:
        """Makes the second half of a step, and waits for nothing but what `check` waits for.

        Args:
            train: As for the whole step.

        Returns:
            What was measured: once, or of each path that was trained.
        """
        if self._sampler is None:
            measured = self._computed(lambda: self._weight_gradients(train))
        else:  # no plan is at work, and what has drawn paths cannot simply be done again
            measured = self._weight_gradients(train)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        return measured

    def _computed(self, half: Callable[[], _T]) -> _T:
        """What a half computes before it trains; once more where a plan fails."""
        return half() if self._relaxation is None else self._relaxation.compute(half)

    def _alpha_gradients(
        self, train: LabelledImages, validation: LabelledImages
    ) -> Sequence[Tensor]:
        with statistics_kept(self._norms):
            loss, gradients = self.order(self.network, self.weight_optimizer, train, validation)
        self.check("the validation loss", loss)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        self.check("the norm of the alphas' gradient", norm)
        return gradients

    def _weight_gradients(self, train: LabelledImages) -> list[Measured]:
        """Leaves the clipped gradients in the weights."""
        weights = self.network.weight_parameters()
        for weight in weights:
            weight.grad = None
        if self._sampler is None:
            with frozen(self.network.architecture_parameters()):
                logits_nk = logits(self.network, train.images_nchw, self.network.precision)
                measured = [self._accumulate(logits_nk, train, 1.0)]
        else:
            measured = self._accumulate_paths(self._sampler, train)
        # What took no part, on no path or skipped, has no gradient: it is left as it is, without
        # decay too.
        norm = nn.utils.clip_grad_norm_(weights, self.gradient_clip)
        self.check("the norm of the weights' gradient", norm)
        return measured

    def _accumulate_paths(self, sampler: PathSampler, train: LabelledImages) -> list[Measured]:
        paths = sampler.paths_to_train()
        return [
            self._accumulate(sampler.logits(train.images_nchw, path), train, 1 / len(paths))
            for path in paths
        ]

    def _accumulate(self, logits_nk: Tensor, train: LabelledImages, share: float) -> Measured:
        """Adds a share of the loss's gradient to the weights'; alphas get none."""
        weights = self.network.weight_parameters()
        loss = functional.cross_entropy(logits_nk, train.labels_n)
        self.check("the training loss", loss)
        gradients = torch.autograd.grad(share * loss, weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                if self._capturable:
                    gradient = optimizers.laid_out_like(gradient, weight)
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
        return Measured(loss.detach(), (logits_nk.argmax(dim=1) == train.labels_n).sum())


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch normalisations of a network.

    Args:
        network: The network.
    """
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def statistics_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Lets batch normalisations use each batch's own statistics without recording them.

    Args:
        norms: They are in training mode. To look for them in the network takes longer than this.
    """
    # What a module itself does when something is set is for parameters and the like, and takes
    # ten times as long.
    set_plainly = object.__setattr__
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        set_plainly(norm, "track_running_stats", False)
    try:
        yield
    finally:
        for norm, was_tracked in zip(norms, tracked, strict=True):
            set_plainly(norm, "track_running_stats", was_tracked)


def check_now(what: str, value: Tensor) -> None:
    """Waits for a scalar, and refuses it if it is not finite.

    Args:
        what: The scalar in words.
        value: The scalar.

    Raises:
        DivergedError: It is not finite.
    """
    number = float(value.detach())
    if not math.isfinite(number):
        raise DivergedError(f"{what} is {number}")
