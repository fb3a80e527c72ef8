"""The steps of a search's present epoch, and what they come to, waited for or not."""

from collections.abc import Callable
from dataclasses import dataclass

from search_core.bilevel import BatchResult, BilevelStep
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.reports import SearchWarning
from search_core.schedules import ListedLR
from search_core.static_evaluation import StaticEvaluation
from search_core.static_training import READ_EVERY, StaticTraining


@dataclass
class EpochSums:
    """What the batches of an epoch have come to."""

    batch: int = 0
    """Batches that are done."""
    loss_sum: float = 0.0
    num_correct: int = 0
    seconds: float = 0.0


class EpochTraining:
    """Makes the steps of an epoch. A device that repeats its work by itself is asked now and then.

    Args:
        step: The search's steps.
        scheduler: Of the weights' learning rate. It goes on after an epoch's last batch.
        num_batches: Of an epoch.
        static: Makes the steps, where nobody waits for each of them.
        diverged: The error for people, of a batch's number in the epoch and what is wrong with it.

    Attributes:
        step: As given.
        sums: Of the present epoch. What has not been read from a device is not in it.
    """

    def __init__(
        self,
        step: BilevelStep,
        scheduler: ListedLR,
        num_batches: int,
        *,
        static: StaticTraining | None,
        diverged: Callable[[int, object], DivergedError],
    ) -> None:
        self.step = step
        self.sums = EpochSums()
        self._scheduler = scheduler
        self._num_batches = num_batches
        self._static = static
        self._diverged = diverged

    @property
    def batches_left(self) -> int:
        """Batches to the end of the epoch."""
        return self._num_batches - self.sums.batch

    @property
    def evaluation(self) -> StaticEvaluation | None:
        """What measures the network as the device likes it; None does so as anywhere."""
        return None if self._static is None else self._static.evaluation

    def train(self, train: LabelledImages, validation: LabelledImages, *, alphas: bool) -> None:
        """Makes the next step.

        Args:
            train: The batch of the weights' half.
            validation: The batch of the alphas' half.
            alphas: Whether the alphas are trained, and not the weights only.

        Raises:
            DivergedError: A loss or a gradient stopped being finite, here or in a batch before.
        """
        if self._static is not None:
            self._train_without_waiting(self._static, train, validation, alphas=alphas)
            return
        try:
            result = self.step(train, validation, alphas=alphas)
        except DivergedError as error:
            raise self.diverged_here(error) from error
        self.take(result)

    def take(self, result: BatchResult, seconds: float = 0.0) -> None:
        """Counts a step.

        Args:
            result: What it measured.
            seconds: What it took.
        """
        self.sums.loss_sum += result.loss
        self.sums.num_correct += result.num_correct
        self.sums.seconds += seconds
        self._advance()

    def read(self) -> None:
        """Waits for what steps have measured, where they are made without waiting.

        Raises:
            DivergedError: One of them did.
        """
        if self._static is None or not self._static.counts:
            return
        totals = self._static.read()
        if totals.fault is not None:
            raise self._diverged(totals.fault.batch, totals.fault.what)
        self.sums.loss_sum = totals.loss_sum
        self.sums.num_correct = totals.num_correct

    def go_on_from(self, sums: EpochSums) -> None:
        """Begins an epoch, or goes on within one.

        Args:
            sums: What its batches have come to; they are counted up from now on.
        """
        self.sums = sums
        self._count_here()

    def forget(self) -> None:
        """Gives back what captured work keeps; what is done again is captured anew."""
        if self._static is not None:
            self._static.forget()

    def news(self) -> tuple[SearchWarning, ...]:
        """What has not been told yet of how the steps are made."""
        return () if self._static is None else self._static.news()

    def diverged_here(self, error: DivergedError) -> DivergedError:
        """The error of the next step, with its place and what to do."""
        return self._diverged(self.sums.batch + 1, error)

    def _train_without_waiting(
        self,
        static: StaticTraining,
        train: LabelledImages,
        validation: LabelledImages,
        *,
        alphas: bool,
    ) -> None:
        if not static.counts:
            static.count_from(self.sums.batch, self.sums.loss_sum, self.sums.num_correct)
        static.train(train, validation, alphas=alphas)
        self._advance()
        if self.batches_left == 0 or self.sums.batch % READ_EVERY == 0:
            self.read()

    def _count_here(self) -> None:
        """Keeps the epoch's sums here, until there is a static step again."""
        if self._static is not None:
            self._static.stop_counting()

    def _advance(self) -> None:
        self.sums.batch += 1
        if self.batches_left == 0:
            # Here, so that a state taken after the last batch needs no step when resumed.
            self._scheduler.step()
