"""Runs trials one after the other in the runner's own process: no cluster, the same results."""

import os
import platform
import threading
from collections.abc import Iterable, Mapping
from uuid import UUID

from store.recording import EpochResult
from workers.failures import Failure, explain
from workers.trial_group import Started, TrialGroup
from workers.trials import EarlyStopping, TrialPlans, TrialSink


class InlineTrials:
    """An executor for one machine without Ray, and for tests that take seconds."""

    def run(
        self,
        plans: TrialPlans,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
        """Runs the trials in order; see `TrialExecutor.run`."""
        while not halt.is_set() and (stacked := plans.next()) is not None:
            ids = [plan.trial_id for plan in stacked]
            for trial_id in ids:
                sink.starting(trial_id)
            group = TrialGroup(stacked)
            try:
                started = group.start()
            except Exception as error:
                _fail(ids, explain(error), sink)
                continue
            self._run_group(group, started, sink, stopping, halt)

    def _run_group(
        self,
        group: TrialGroup,
        started: Mapping[UUID, Started | Failure],
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
        results: dict[UUID, EpochResult | Failure | None] = {}
        for trial_id, start in started.items():
            if isinstance(start, Failure):
                results[trial_id] = start
                continue
            sink.started(
                trial_id,
                from_epoch=start.from_epoch,
                node=platform.node(),
                pid=os.getpid(),
                relaxation=start.relaxation,
            )
            results[trial_id] = start.result
        ended: set[UUID] = set()
        while True:
            for trial_id, result in results.items():
                if isinstance(result, Failure):
                    _fail([trial_id], result, sink)
                elif result is not None and _record(trial_id, result, group, sink, stopping):
                    ended.add(trial_id)
            # A scheduler stops trials that are not stacked: such a group is of one.
            if not group.open.keys() - ended or halt.is_set():
                return
            try:
                results = dict(group.train_epoch())
            except Exception as error:
                _fail(group.open, explain(error), sink)
                return


def _record(
    trial_id: UUID,
    result: EpochResult,
    group: TrialGroup,
    sink: TrialSink,
    stopping: EarlyStopping | None,
) -> bool:
    """Records an epoch; whether it was the trial's last."""
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
