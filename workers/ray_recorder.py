"""What a Tune run tells of its trials, on its way to the store."""

from typing import Any
from uuid import UUID

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.result import DONE

from search_core.genotype import parse
from store.states import Reason
from workers.failures import Failure
from workers.ray_failures import Failures
from workers.ray_run import Halting, KeptErrors
from workers.reports import from_report
from workers.trainable import give_up
from workers.trials import EarlyStopping, ExecutorError, TrialSink


class Recorder(tune.Callback):
    """Hands on what the trials report: the single writer of a search.

    One of Tune's trials may be a stack of ours. Of those that have ended, a process that is lost
    and started again says once more how; that is no news.

    Failures are counted by `workers.ray_failures`; Tune is told to go on whatever happens.

    Args:
        sink: Where it all goes.
        stopping: Ends trials early, if anything does.
        errors: Keeps what is raised here.
        failures: Counts failures.
        halting: Is told which trials train.
    """

    def __init__(
        self,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        errors: KeptErrors,
        failures: Failures,
        halting: Halting,
    ) -> None:
        self._halting = halting
        self._sink = sink
        self._stopping = stopping
        self._errors = errors
        self._failures = failures
        self._ended: set[UUID] = set()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # As of `Halting`.
        return (object, ())

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial has its place on the cluster."""
        self._halting.running.add(trial.trial_id)
        self._failures.started(trial)
        with self._errors.kept():
            for trial_id in self._open(trial):
                self._sink.starting(trial_id)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """A trial has reported something: that it has started, an epoch, or its end."""
        is_halted = trial.trial_id in self._halting.stopped
        if "ray_node" in result:
            self._failures.placed(trial, result["ray_node"])
        with self._errors.kept():
            for trial_id in self._open(trial):
                if news := result["trials"].get(str(trial_id)):
                    if "started" not in news:
                        self._failures.got_further(trial)
                    self._record(trial_id, news, done=result[DONE] and not is_halted)
        if result[DONE]:
            self._halting.running.discard(trial.trial_id)

    def _record(self, trial_id: UUID, news: dict[str, Any], *, done: bool) -> None:
        if started := news.get("started"):
            self._sink.started(trial_id, **started)
        if report := news.get("report"):
            self._sink.epoch_ended(trial_id, from_report(report))
        if failure := news.get("failure"):
            self._sink.failed(trial_id, Reason(failure["reason"]), failure["message"])
        elif derived := news.get("derived"):
            self._sink.succeeded(trial_id, parse(derived), news.get("test_result"))
        elif done:
            # Not by itself, then: the scheduler said so.
            assert self._stopping is not None
            assert report is not None
            last = from_report(report)
            self._sink.stopped(trial_id, last.genotype, self._stopping.why(last))
        else:
            return
        self._ended.add(trial_id)

    def _open(self, trial: TuneTrial) -> list[UUID]:
        return [each for each in _trial_ids(trial) if each not in self._ended]

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial has failed, and Tune would go on with it."""
        self._halting.running.discard(trial.trial_id)
        failure = self._failures.why(trial)
        with self._errors.kept():
            if self._failures.goes_on(trial, failure):
                message = f"It goes on from its checkpoint after: {failure.message}"
                for trial_id in self._open(trial):
                    self._sink.interrupted(trial_id, failure.reason, message)
            else:
                self._fail(trial, failure)
                give_up(trial.config)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Tune gives a trial up whose process is lost before it has begun.

        Had the process run another trial before, Tune would wait for it for ever. So this run ends,
        and the search goes on in the next.
        """
        self._halting.running.discard(trial.trial_id)
        failure = self._failures.why(trial)
        with self._errors.kept():
            if failure.reason is Reason.NODE_LOST:
                raise ExecutorError(
                    "The node of a trial was lost when it had hardly begun", Reason.NODE_LOST
                )
            if failure.process_lost:
                raise ExecutorError(
                    "The process of a trial was lost when it had hardly begun",
                    Reason.RUNNER_CRASHED,
                )
            self._fail(trial, failure)

    def _fail(self, trial: TuneTrial, failure: Failure) -> None:
        for trial_id in self._open(trial):
            self._sink.failed(trial_id, failure.reason, failure.message)
            self._ended.add(trial_id)


def _trial_ids(trial: TuneTrial) -> list[UUID]:
    return [UUID(each["trial_id"]) for each in trial.config["plan"]["trials"]]
