"""Runs trials one after the other in the runner's own process: no cluster, the same results."""

import logging
import os
import platform
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from store.epoch_reports import EpochResult
from workers.failures import Failure, explain
from workers.trial_group import TrialGroup
from workers.trials import EarlyStopping, TrialPlan, TrialPlans, TrialSink

_LOG = logging.getLogger(__name__)

_Results = Mapping[UUID, EpochResult | Failure | None]


class InlineTrials:
    """An executor for one machine without Ray, and for tests that take seconds.

    Args:
        max_failures: Errors of one trial that are retried, where another try may mend them.
    """

    def __init__(self, *, max_failures: int = 0) -> None:
        self._max_failures = max_failures

    def run(
        self,
        plans: TrialPlans,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
        """Runs the trials in order; see `TrialExecutor.run`."""
        while not halt.is_set() and (stacked := plans.next()) is not None:
            ended: set[UUID] = set()
            num_failures = 0
            while (failure := _run(stacked, ended, sink, stopping, halt)) is not None:
                num_failures += 1
                if failure.retry and halt.is_set():
                    return
                left = [plan.trial_id for plan in stacked if plan.trial_id not in ended]
                if not failure.retry or num_failures > self._max_failures:
                    _fail(left, failure, sink)
                    break
                for trial_id in left:
                    sink.interrupted(
                        trial_id,
                        failure.reason,
                        f"It goes on from its checkpoint after: {failure.message}",
                    )


def _run(
    stacked: Sequence[TrialPlan],
    ended: set[UUID],
    sink: TrialSink,
    stopping: EarlyStopping | None,
    halt: threading.Event,
) -> Failure | None:
    """Runs the trials of one process, until all of them have ended or none can go on.

    Args:
        stacked: The trials.
        ended: Those that have; more are added.
        sink: Where the reports go.
        stopping: Ends trials early.
        halt: Ends all of them after an epoch.

    Returns:
        Why the trials that have not ended cannot go on; None when all have, or were halted.
    """
    for plan in stacked:
        if plan.trial_id not in ended:
            sink.starting(plan.trial_id)
    group = TrialGroup(stacked)
    try:
        results = _start(group, ended, sink)
        while True:
            for trial_id, result in results.items():
                if trial_id not in ended and _record(trial_id, result, group, sink, stopping):
                    ended.add(trial_id)
            # A scheduler stops trials that are not stacked: such a group is of one.
            if not group.open.keys() - ended or halt.is_set():
                return None
            results = _train(group)
    except _CannotGoOnError as error:
        return error.failure


class _CannotGoOnError(Exception):
    """What a trial has raised, as opposed to what the sink raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.failure = explain(error)


def _start(group: TrialGroup, ended: Collection[UUID], sink: TrialSink) -> _Results:
    try:
        started = group.start()
    except Exception as error:
        _LOG.exception("no trial of this process can start")
        raise _CannotGoOnError(error) from error
    results: dict[UUID, EpochResult | Failure | None] = {}
    for trial_id, start in started.items():
        if isinstance(start, Failure):
            results[trial_id] = start
            continue
        if trial_id not in ended:
            sink.started(
                trial_id,
                from_epoch=start.from_epoch,
                node=platform.node(),
                pid=os.getpid(),
                relaxation=start.relaxation,
            )
        results[trial_id] = start.result
    return results


def _train(group: TrialGroup) -> _Results:
    try:
        return group.train_epoch()
    except Exception as error:
        _LOG.exception("no trial of this process can go on")
        raise _CannotGoOnError(error) from error


def _record(
    trial_id: UUID,
    result: EpochResult | Failure | None,
    group: TrialGroup,
    sink: TrialSink,
    stopping: EarlyStopping | None,
) -> bool:
    """Records an epoch, or a failure; whether the trial has ended."""
    if isinstance(result, Failure):
        _fail([trial_id], result, sink)
        return True
    if result is None:
        return False
    stops = stopping is not None and stopping.stops(trial_id, result)
    sink.epoch_ended(trial_id, result)
    if (end := group.end_of(trial_id)) is not None:
        sink.succeeded(trial_id, end.genotype, end.result)
        return True
    if stops:
        assert stopping is not None
        sink.stopped(trial_id, result.genotype, stopping.why(result))
    return stops


def _fail(trial_ids: Iterable[UUID], failure: Failure, sink: TrialSink) -> None:
    for trial_id in trial_ids:
        sink.failed(trial_id, failure.reason, failure.message)
