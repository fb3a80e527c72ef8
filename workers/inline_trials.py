"""Runs trials one after the other in the runner's own process: no cluster, the same results."""

import os
import platform
from collections.abc import Sequence

from store.jobs import JobSpec
from workers.failures import explain
from workers.trial_run import TrialRun, use_threads
from workers.trials import TrialPlan, TrialSink


class InlineTrials:
    """An executor for one machine without Ray, and for tests that take seconds."""

    def run(self, spec: JobSpec, plans: Sequence[TrialPlan], sink: TrialSink) -> None:
        """Runs the trials in order; see `TrialExecutor.run`."""
        use_threads(spec.resources.cpus)
        for plan in plans:
            sink.starting(plan.trial_id)
            try:
                run = TrialRun(spec, plan.seed, plan.folder, plan.data_root)
            except Exception as error:
                failure = explain(error)
                sink.failed(plan.trial_id, failure.reason, failure.message)
                continue
            self._run_one(run, plan, sink)

    def _run_one(self, run: TrialRun, plan: TrialPlan, sink: TrialSink) -> None:
        sink.started(
            plan.trial_id, from_epoch=run.from_epoch, node=platform.node(), pid=os.getpid()
        )
        if run.last_result is not None:
            sink.epoch_ended(plan.trial_id, run.last_result)
        while not run.finished:
            try:
                result = run.train_epoch()
            except Exception as error:
                failure = explain(error)
                sink.failed(plan.trial_id, failure.reason, failure.message)
                return
            sink.epoch_ended(plan.trial_id, result)
        sink.succeeded(plan.trial_id, run.genotype(), run.result())
