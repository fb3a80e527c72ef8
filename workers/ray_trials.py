"""Runs the trials of a search as Ray Tune trials on a cluster."""

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.result import DONE
from ray.tune.search import Searcher

from search_core.genotype import parse
from store.artifacts import ArtifactFolder
from store.jobs import JobSpec, kind_of
from store.states import Reason
from workers.failures import Failure, explain, out_of_memory
from workers.reports import from_report
from workers.trainable import TrialTrainable, to_config
from workers.trials import EarlyStopping, ExecutorError, TrialPlans, TrialSink

_MOST_PENDING = 200


class RayTrials:
    """An executor on a Ray cluster.

    Args:
        address: The head's address.
        results: Folder for what Tune itself writes.
        logs: Where what the trials write goes.
        attempt: Of the search.
        max_failures: Crashes of one trial's process that are retried.
    """

    def __init__(
        self,
        address: str,
        results: Path,
        *,
        logs: ArtifactFolder,
        attempt: int,
        max_failures: int,
    ) -> None:
        self._address = address
        self._results = results
        self._logs = logs
        self._attempt = attempt
        self._max_failures = max_failures

    def run(self, plans: TrialPlans, sink: TrialSink, stopping: EarlyStopping | None) -> None:
        """Runs the trials side by side as the cluster has room; see `TrialExecutor.run`.

        Early stopping is a scheduler of Tune's, `workers.asha.Asha`.
        """
        # Results reach the database through the callback; Tune's own loggers would write them
        # to files that nobody reads. Its console reporter repeats the configuration.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
        logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)
        # Ctrl-C is the dispatcher's; Tune would take it as a wish to end the search.
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        # Of a trial's first report, which has no metrics yet, Tune would demand them.
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
        # How many wait for room on the cluster. Tune's own choice is to prepare the next one only
        # when the one before it has started.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(min(plans.num_open, _MOST_PENDING))
        self._connect()
        errors = _Errors()
        tuner = tune.Tuner(
            TrialTrainable,
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                search_alg=_Planner(plans, errors, self._logs, self._attempt),
                num_samples=plans.num_open,
                scheduler=stopping,
            ),
            run_config=tune.RunConfig(
                storage_path=str(self._results.parent),
                name=self._results.name,
                callbacks=[_Recorder(sink, stopping, errors)],
                # The trials keep their own checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=self._max_failures),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
            # Nobody resumes from what Tune wrote for itself.
            shutil.rmtree(self._results, ignore_errors=True)
        except Exception:
            # Tune wraps what a callback raises into an error of its own.
            if errors.first is not None:
                raise errors.first from None
            raise

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=self._address, log_to_driver=True)
        except ConnectionError as error:
            raise ExecutorError(
                f"No Ray cluster answers at {self._address}: {error}", Reason.NO_CLUSTER
            ) from error
        # Ray puts a handler of its own there, which ends the process without our last word.
        signal.signal(signal.SIGTERM, on_sigterm)


class _Errors:
    """Keeps what was raised on our side of Tune."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps what the block raises, and lets it through."""
        try:
            yield
        except Exception as error:
            self.first = self.first or error
            raise


class _Planner(Searcher):
    """Gives Tune the trials, one whenever it asks.

    Where later trials are drawn from what earlier ones came to, no more are given than the cluster
    can run at once: one that waits for room would be drawn too early.
    """

    def __init__(
        self, plans: TrialPlans, errors: _Errors, logs: ArtifactFolder, attempt: int
    ) -> None:
        super().__init__()
        self._logs = logs
        self._attempt = attempt
        self._plans = plans
        self._errors = errors
        self._live: set[str] = set()
        self._most_live = plans.num_open

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What Tune's next trial runs; `FINISHED` after the last, None for not now."""
        if len(self._live) >= self._most_live:
            return None
        with self._errors.kept():
            plans = self._plans.next()
        if plans is None:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        spec = plans[0].spec
        if self._plans.are_drawn_late:
            self._most_live = _num_places(spec)
        self._live.add(trial_id)
        return {"plan": to_config(plans, kind_of(spec), self._logs, self._attempt)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has ended, however it did."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is known of the trials is in the store."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # As of the recorder.
        return (object, ())


class _Recorder(tune.Callback):
    """Hands on what the trials report: the single writer of a search.

    One of Tune's trials may be a stack of ours. Of those that have ended, a process that is lost
    and started again says once more how; that is no news.
    """

    def __init__(self, sink: TrialSink, stopping: EarlyStopping | None, errors: _Errors) -> None:
        self._sink = sink
        self._stopping = stopping
        self._errors = errors
        self._ended: set[UUID] = set()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a resuming of its own. A search is resumed by a new Tune run
        # over the open trials instead, which needs nothing of this one.
        return (object, ())

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
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
        with self._errors.kept():
            for trial_id in self._open(trial):
                if news := result["trials"].get(str(trial_id)):
                    self._record(trial_id, news, done=result[DONE])

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
        failure = _explain_crash(trial)
        with self._errors.kept():
            for trial_id in self._open(trial):
                self._sink.interrupted(
                    trial_id, f"It goes on from its checkpoint after: {failure.message}"
                )

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        failure = _explain_crash(trial)
        with self._errors.kept():
            for trial_id in self._open(trial):
                self._sink.failed(trial_id, failure.reason, failure.message)
                self._ended.add(trial_id)


def _num_places(spec: JobSpec) -> int:
    """Trials that the living nodes of the cluster can run at once, at least one."""
    needs = {"CPU": spec.resources.cpus, "GPU": spec.resources.gpus}
    return max(
        1,
        sum(
            min(int(node["Resources"].get(name, 0) // need) for name, need in needs.items() if need)
            for node in ray.nodes()
            if node["Alive"]
        ),
    )


def _trial_ids(trial: TuneTrial) -> list[UUID]:
    return [UUID(each["trial_id"]) for each in trial.config["plan"]["trials"]]


def _explain_crash(trial: TuneTrial) -> Failure:
    """What ended a trial's process, or was raised in it."""
    error = trial.get_pickled_error()
    if isinstance(error, RayTaskError):
        return explain(error.cause)
    if isinstance(error, OutOfMemoryError):
        return out_of_memory("Its node ran out of memory and Ray stopped the trial.")
    return Failure(
        Reason.TRIAL_CRASHED,
        "Its process or its node was lost. The log of the search's runner says more.",
        retry=True,
    )
