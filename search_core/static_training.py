"""Training a search on a GPU without waiting for it, and measuring it there."""

import torch

from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.graphs import StaticStep
from search_core.reports import SearchWarning
from search_core.spec.algorithm import RelaxationForm
from search_core.spec.search import SearchSpec
from search_core.static_evaluation import StaticEvaluation
from search_core.tally import Totals

READ_EVERY = 16
"""Batches after which a GPU is asked how it went. Asked seldom, it is never kept waiting; never
asked, it would fall behind what is told of it."""


class StaticTraining:
    """Makes a search's steps and evaluations as work that a device repeats.

    Args:
        step: The search's steps.
        device: Where its network is.

    Attributes:
        evaluation: Measures the network.
    """

    def __init__(self, step: BilevelStep, device: torch.device) -> None:
        self._steps = StaticStep(step, device)
        self.evaluation = StaticEvaluation(step.network, device, self._steps.note_failure)
        self._counts = False

    @property
    def counts(self) -> bool:
        """Whether the present epoch's sums are on the device, and nowhere else."""
        return self._counts

    def count_from(self, batch: int, loss_sum: float, num_correct: int) -> None:
        """Keeps the sums of the present epoch from now on.

        Args:
            batch: Batches done in it.
            loss_sum: Their losses.
            num_correct: Their hits.
        """
        self._steps.start(batch, loss_sum, num_correct)
        self._counts = True

    def stop_counting(self) -> None:
        """Leaves the sums to somebody else; what has not been read is not needed."""
        self._counts = False

    def train(self, train: LabelledImages, validation: LabelledImages, *, alphas: bool) -> None:
        """Makes a step, and counts it.

        Args:
            train: The batch of the weights' half; all have the same shape.
            validation: The batch of the alphas' half, likewise.
            alphas: Whether the alphas are trained, and not the weights only.
        """
        assert self._counts
        self._steps(train, validation, alphas=alphas)

    def read(self) -> Totals:
        """Waits for all steps, and says what they measured."""
        return self._steps.read()

    def forget(self) -> None:
        """Gives back what captured work keeps; more of it is captured anew."""
        self._steps.forget()
        self.evaluation.forget()

    def news(self) -> tuple[SearchWarning, ...]:
        """What has not been told yet: that work could not be captured, and why."""
        failure = self._steps.take_failure()
        if failure is None:
            return ()
        return (
            SearchWarning(
                "not_captured",
                "the GPU could not be made to repeat its work by itself, which is slower: "
                f"{failure}",
            ),
        )


def is_static(spec: SearchSpec, device: torch.device, relaxation: RelaxationForm) -> bool:
    """Whether all steps of a search are the same work, for a device that repeats it by itself.

    Args:
        spec: The search.
        device: Where it trains.
        relaxation: What its mixtures are computed by.
    """
    return device.type == "cuda" and relaxation == "fast" and spec.steps_are_alike
