"""Runs of several seeds of one spec, epoch by epoch, in one stack.

Legend: n images, s stacked runs, k classes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from search_core.bilevel import batch_norms, statistics_kept
from search_core.costs import EVALUATION_FACTOR, LARGEST_EVALUATION
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.reports import EpochReport
from search_core.search import SearchRun
from search_core.stacking.networks import has_form
from search_core.stacking.orders import StackedBatch, losses
from search_core.stacking.step import NotFiniteError, StackedStep

Outcome = EpochReport | DivergedError
"""What an epoch of one run came to: what it measured, or why the run cannot go on."""


class StackedRun:
    """Several runs of one spec, which differ in the seed, trained together.

    A run keeps all that is its own: images and their order, network, optimizers, position. Between
    two epochs its `state_dict` is that of a run alone, from which a run alone goes on, or another
    stack.

    Where the spec says so (`SearchSpec.stacks_side_by_side`), and there is a stacked form of the
    network, the runs make each step together. Their results are then those that they have alone,
    but for rounding: sums are taken in another order. Otherwise, and for finalists, each trains its
    epoch as it does alone, one after the other, with the same bits.

    Args:
        runs: The runs, all at the same place and none of them finished: an epoch of the stack is
            one of each.
        clock: Seconds since any fixed moment, as that of the runs. Each run reports the durations
            of the stack.

    Raises:
        ValueError: They are not at the same place.

    Attributes:
        runs: Those that go on.
    """

    def __init__(
        self, runs: Sequence[SearchRun], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if len({(run.epoch, run.place) for run in runs}) > 1:
            places = ", ".join(f"epoch {run.epoch}, batch {run.place[1]}" for run in runs)
            raise ValueError(f"runs at different places cannot be stacked: {places}")
        self.runs = list(runs)
        self._clock = clock
        self._step = self._stack()

    def run_epoch(self) -> Mapping[SearchRun, Outcome]:
        """Trains to the end of the present epoch, then measures each run on its alphas' half.

        A run whose loss or gradient stops being finite ends there, and the others go on without it.

        Returns:
            What the epoch came to, for each of the runs that there were before.
        """
        before = list(self.runs)
        outcomes: dict[SearchRun, Outcome] = {}
        if self._step is not None:
            for run in self.runs:
                run.begin_epoch()
            self._step.begin_epoch()
        while self._step is not None and self.runs[0].batches_left:
            self._train_batch(self._step, outcomes)
        if self._step is not None:
            self._close_epoch(self._step, outcomes)
        outcomes |= self._train_in_turn([run for run in before if run not in outcomes])
        left = [
            run
            for run in self.runs
            if not run.finished and not isinstance(outcomes[run], DivergedError)
        ]
        if left != self.runs or (self._step is not None and not self._are_side_by_side(left)):
            self.runs = left
            self._step = self._stack()
        return outcomes

    @staticmethod
    def _are_side_by_side(runs: Sequence[SearchRun]) -> bool:
        return (
            len(runs) > 1
            and runs[0].searches
            and runs[0].spec.stacks_side_by_side
            and has_form(runs[0].network)
        )

    def _stack(self) -> StackedStep | None:
        if not self._are_side_by_side(self.runs):
            return None
        spec = self.runs[0].spec
        step = StackedStep([run.step for run in self.runs], spec.algorithm, spec.training)
        step.begin_epoch()
        return step

    def _train_batch(self, step: StackedStep, outcomes: dict[SearchRun, Outcome]) -> None:
        started = self._clock()
        drawn = [run.draw() for run in self.runs]
        train = StackedBatch.of([pair[0] for pair in drawn])
        try:
            if self.runs[0].trains_alphas:
                step.train_alphas(train, StackedBatch.of([pair[1] for pair in drawn]))
            results = step.train_weights(train)
        except NotFiniteError as error:
            self._train_each(step, drawn, error, outcomes)
            return
        seconds = self._clock() - started
        for run, result in zip(self.runs, results, strict=True):
            run.take(result, seconds)

    def _train_each(
        self,
        step: StackedStep,
        drawn: Sequence[tuple[LabelledImages, LabelledImages]],
        error: NotFiniteError,
        outcomes: dict[SearchRun, Outcome],
    ) -> None:
        """Makes what is left of a step for each run alone, which tells whose loss it was."""
        step.publish()
        for run, (train, validation) in zip(self.runs, drawn, strict=True):
            started = self._clock()
            try:
                if error.of_weights:
                    # The stack's pass has recorded this batch in the running statistics.
                    with statistics_kept(batch_norms(run.network.train())):
                        result = run.step.train_weights(train)
                else:
                    result = run.step(train, validation)
            except DivergedError as diverged:
                outcomes[run] = run.diverged_here(diverged)
            else:
                run.take(result, self._clock() - started)
        self.runs = [run for run in self.runs if run not in outcomes]
        # Optimizers have gone on by themselves: the stack starts again from where they are.
        self._step = self._stack()

    def _train_in_turn(self, runs: Sequence[SearchRun]) -> dict[SearchRun, Outcome]:
        """An epoch of each run, as it trains alone; all report the time of all."""
        outcomes: dict[SearchRun, Outcome] = {}
        seconds_lost = 0.0
        for run in runs:
            started = self._clock()
            try:
                outcomes[run] = run.run_epoch()
            except DivergedError as error:
                outcomes[run] = error
                seconds_lost += self._clock() - started
        reports = {run: each for run, each in outcomes.items() if isinstance(each, EpochReport)}
        of_all = _metrics_of_all([each.metrics for each in reports.values()], seconds_lost)
        for run, report in reports.items():
            metrics = {name: of_all.get(name, value) for name, value in report.metrics.items()}
            outcomes[run] = replace(report, metrics=metrics)
        return outcomes

    def _close_epoch(self, step: StackedStep, outcomes: dict[SearchRun, Outcome]) -> None:
        started = self._clock()
        measured = self._measure(step)
        step.publish()
        seconds = self._clock() - started
        for run, (loss, accuracy) in zip(self.runs, measured, strict=True):
            try:
                outcomes[run] = run.close_epoch((loss, accuracy), seconds)
            except DivergedError as error:
                outcomes[run] = error

    @torch.no_grad()
    def _measure(self, step: StackedStep) -> list[tuple[float, float]]:
        """Loss and accuracy of each run; see `search_core.evaluation.evaluate`."""
        most = min(EVALUATION_FACTOR * self.runs[0].spec.training.batch_size, LARGEST_EVALUATION)
        parts = [run.validation.in_order(most) for run in self.runs]
        sums_s: Tensor = torch.zeros(len(self.runs), dtype=torch.float64)
        correct_s = torch.zeros(len(self.runs), dtype=torch.int64)
        step.network.eval()
        for batches in zip(*parts, strict=True):
            batch = StackedBatch.of(batches)
            logits_nsk = step.network(batch.images)
            sums_s += (losses(logits_nsk, batch) * len(batch.labels_ns)).double().cpu()
            correct_s += (logits_nsk.argmax(dim=2) == batch.labels_ns).sum(dim=0).cpu()
        num_images = len(self.runs[0].validation)
        return [
            (loss / num_images, correct / num_images)
            for loss, correct in zip(sums_s.tolist(), correct_s.tolist(), strict=True)
        ]


def _metrics_of_all(
    epochs: Sequence[Mapping[str, float]], seconds_besides: float
) -> dict[str, float]:
    """Metrics of the time that several epochs took, one after the other."""
    of_all = {"seconds": sum(each["seconds"] for each in epochs) + seconds_besides}
    for name in ("steps_per_second", "images_per_second"):
        # A finalist that has diverged has none.
        paces = [each[name] for each in epochs if name in each]
        if paces:
            of_all[name] = 1 / sum(1 / pace for pace in paces)
    return of_all
