"""Runs trials one after the other in the runner's own process: no cluster, the same results."""

import os
import platform

from store.recording import EpochResult
from workers.failures import explain
from workers.trial_run import TrialRun, use_threads
from workers.trials import EarlyStopping, TrialPlan, TrialPlans, TrialSink


class InlineTrials:
    """An executor for one machine without Ray, and for tests that take seconds."""

    def run(self, plans: TrialPlans, sink: TrialSink, stopping: EarlyStopping | None) -> None:
        """Runs the trials in order; see `TrialExecutor.run`."""
        while (plan := plans.next()) is not None:
            use_threads(plan.spec.resources.cpus)
            sink.starting(plan.trial_id)
            try:
                run = TrialRun(plan.spec, plan.seed, plan.folder, plan.data_root)
            except Exception as error:
                failure = explain(error)
                sink.failed(plan.trial_id, failure.reason, failure.message)
                continue
            self._run_one(run, plan, sink, stopping)

    def _run_one(
        self, run: TrialRun, plan: TrialPlan, sink: TrialSink, stopping: EarlyStopping | None
    ) -> None:
        sink.started(
            plan.trial_id,
            from_epoch=run.from_epoch,
            node=platform.node(),
            pid=os.getpid(),
            relaxation=run.relaxation,
        )
        result: EpochResult | None = run.last_result
        while True:
            if result is not None:
                stops = stopping is not None and stopping.stops(plan.trial_id, result)
                sink.epoch_ended(plan.trial_id, result)
                if run.finished:
                    break
                if stops:
                    assert stopping is not None
                    sink.stopped(plan.trial_id, result.genotype, stopping.why(result))
                    return
            try:
                result = run.train_epoch()
            except Exception as error:
                failure = explain(error)
                sink.failed(plan.trial_id, failure.reason, failure.message)
                return
        sink.succeeded(plan.trial_id, run.genotype(), run.result())
