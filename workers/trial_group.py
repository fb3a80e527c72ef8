"""The trials of one process: one, or several seeds of a search that are stacked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import torch

from search_core.errors import DivergedError
from search_core.genotype import Genotype
from search_core.pace import reset_peak_memory
from search_core.spec import SearchSpec
from search_core.spec.algorithm import RelaxationForm
from search_core.stacking import StackedRun
from store.epoch_reports import EpochResult
from store.jobs import JobSpec
from workers import memory
from workers.failures import Failure, explain
from workers.trial_run import TrialRun, device_of
from workers.trials import TrialPlan

_LOG = logging.getLogger(__name__)

_LOGGED = ("train_loss", "validation_loss", "validation_accuracy", "seconds")
"""The metrics of an epoch's line in the log; all of them are in the database."""


@dataclass(frozen=True)
class Started:
    """A trial is there.

    Attributes:
        from_epoch: Completed epochs of the checkpoint that it goes on from.
        result: What the last of them reported; None before the first.
        relaxation: What a search's mixtures are computed by; None of a training.
    """

    from_epoch: int
    result: EpochResult | None
    relaxation: RelaxationForm | None


@dataclass(frozen=True)
class End:
    """What a trial that has finished came to: its architecture, and a training's result."""

    genotype: Genotype
    result: Mapping[str, Any] | None


class TrialGroup:
    """Trials that share a process, each with a folder, reports and an end of its own.

    Several are a stack, an epoch of all of them at a time. Those that are behind the others, such
    as one that is retried, catch up first. A process that is killed while it saves leaves the
    checkpoints of one epoch for some, and of the one before for the others: then all go back to
    the latter, which no report has left behind, so that they end as if nothing had happened.

    Args:
        plans: What they run: one spec, with different seeds.
    """

    def __init__(self, plans: Sequence[TrialPlan]) -> None:
        self._plans = plans
        self._spec = plans[0].spec
        self._trials: dict[UUID, TrialRun] = {}
        """Those that have not failed."""
        self._stack: StackedRun | None = None

    def start(self) -> Mapping[UUID, Started | Failure]:
        """Builds the trials, or resumes them.

        Returns:
            Where each of them is, or why it is not.

        Raises:
            Exception: All of them are concerned, or another try may mend it.
        """
        use_threads(self._spec.resources.cpus)
        device = device_of(self._spec)
        # This process may have run other trials.
        reset_peak_memory(torch.device(device))
        if isinstance(self._spec, SearchSpec):
            free = _free_bytes(device, self._spec.resources.gpus)
            place = "its node" if device == "cpu" else "its GPU"
            memory.check(self._spec, free, place, num_stacked=len(self._plans))
        failures: dict[UUID, Failure] = {}
        for plan in self._plans:
            try:
                self._trials[plan.trial_id] = TrialRun(
                    _share_of(plan.spec, len(self._plans)),
                    plan.seed,
                    plan.folder.open(),
                    plan.data_root,
                )
            except Exception as error:
                failure = explain(error)
                if failure.retry:
                    raise
                failures[plan.trial_id] = failure
        self._level()
        started = {
            trial_id: Started(trial.from_epoch, trial.last_result, trial.relaxation)
            for trial_id, trial in self._trials.items()
        }
        outcomes: dict[UUID, Started | Failure] = {**started, **failures}
        for plan in self._plans:
            _log_start(plan, outcomes[plan.trial_id])
        return outcomes

    @property
    def open(self) -> Mapping[UUID, TrialRun]:
        """The trials that have epochs left."""
        return {key: trial for key, trial in self._trials.items() if not trial.finished}

    def end_of(self, trial_id: UUID) -> End | None:
        """What a trial came to; None of one that has epochs left, or has failed."""
        trial = self._trials.get(trial_id)
        if trial is None or not trial.finished:
            return None
        return End(trial.genotype(), trial.result())

    def train_epoch(self) -> Mapping[UUID, EpochResult | Failure]:
        """Trains one epoch of those that have completed fewest; then their checkpoints are safe.

        Returns:
            What each of them measured, or why it cannot go on.

        Raises:
            Exception: None of them can go on.
        """
        lowest = min(trial.epoch for trial in self.open.values())
        behind = {key: trial for key, trial in self.open.items() if trial.epoch == lowest}
        outcomes = self._train(behind)
        for plan in self._plans:
            if plan.trial_id in outcomes:
                _log_epoch(plan, outcomes[plan.trial_id])
        return outcomes

    def _train(self, behind: Mapping[UUID, TrialRun]) -> dict[UUID, EpochResult | Failure]:
        if len(self._plans) == 1:
            (trial_id, trial), *_ = behind.items()
            return {trial_id: trial.train_epoch()}
        runs = {trial.search: key for key, trial in behind.items()}
        if self._stack is None or set(self._stack.runs) != set(runs):
            self._stack = StackedRun(list(runs))
        outcomes: dict[UUID, EpochResult | Failure] = {}
        for run, outcome in self._stack.run_epoch().items():
            trial_id = runs[run]
            if isinstance(outcome, DivergedError):
                del self._trials[trial_id]
                outcomes[trial_id] = explain(outcome)
            else:
                outcomes[trial_id] = behind[trial_id].keep(outcome)
        return outcomes

    def _level(self) -> None:
        if not self.open:
            return
        lowest = min(trial.epoch for trial in self.open.values())
        for trial in self._trials.values():
            if trial.epoch == lowest + 1:
                trial.go_back()


def _log_start(plan: TrialPlan, start: Started | Failure) -> None:
    if isinstance(start, Failure):
        _LOG.error("trial %d, seed %d, failed: %s", plan.number, plan.seed, start.message)
    else:
        _LOG.info("trial %d, seed %d, at epoch %d", plan.number, plan.seed, start.from_epoch)


def _log_epoch(plan: TrialPlan, outcome: EpochResult | Failure) -> None:
    if isinstance(outcome, Failure):
        _LOG.error("trial %d failed: %s", plan.number, outcome.message)
        return
    shown = ", ".join(
        f"{name} {outcome.metrics[name]:.4f}" for name in _LOGGED if name in outcome.metrics
    )
    _LOG.info(
        "trial %d, epoch %d of %d: %s", plan.number, outcome.epoch, plan.spec.total_epochs, shown
    )
    for warning in outcome.warnings:
        _LOG.warning("trial %d, epoch %d: %s", plan.number, outcome.epoch, warning.message)


def _share_of(spec: JobSpec, num_stacked: int) -> JobSpec:
    """The spec with its share of the cores that read images ahead: all but the one that trains.

    One after the other, each has all of them in its turn.
    """
    if not (isinstance(spec, SearchSpec) and spec.stacks_side_by_side):
        return spec
    readers = (spec.resources.cpus - 1) // num_stacked
    return spec.model_copy(
        update={"resources": spec.resources.model_copy(update={"cpus": 1 + readers})}
    )


def _free_bytes(device: str, gpus: float) -> int:
    """Memory that a trial may take; with a share of a GPU that share, although more is free."""
    if device == "cpu":
        return memory.available()
    torch.cuda.empty_cache()  # of the trials before
    free, whole = torch.cuda.mem_get_info()
    return int(min(free, whole * min(gpus, 1)))


def use_threads(count: int) -> None:
    """Makes this process compute with as many threads as the trial was given CPUs."""
    torch.set_num_threads(count)
