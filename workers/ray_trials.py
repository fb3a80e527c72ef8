"""Runs the trials of a search as Ray Tune trials on a cluster."""

import logging
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from search_core.genotype import parse
from store.jobs import JobSpec, kind_of
from store.states import Reason
from workers.failures import Failure, explain, out_of_memory
from workers.reports import from_report
from workers.trainable import TrialTrainable
from workers.trials import ExecutorError, TrialPlan, TrialSink


class RayTrials:
    """An executor on a Ray cluster.

    Args:
        address: The head's address.
        results: Folder for what Tune itself writes.
        max_failures: Crashes of one trial's process that are retried.
    """

    def __init__(self, address: str, results: Path, *, max_failures: int) -> None:
        self._address = address
        self._results = results
        self._max_failures = max_failures

    def run(self, spec: JobSpec, plans: Sequence[TrialPlan], sink: TrialSink) -> None:
        """Runs the trials side by side as the cluster has room; see `TrialExecutor.run`."""
        # Results reach the database through the callback; Tune's own loggers would write them
        # to files that nobody reads. Its console reporter repeats the configuration.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
        logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)
        # Ctrl-C is the dispatcher's; Tune would take it as a wish to end the search.
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=self._address, log_to_driver=True)
        except ConnectionError as error:
            raise ExecutorError(
                f"No Ray cluster answers at {self._address}: {error}", Reason.NO_CLUSTER
            ) from error
        # Ray puts a handler of its own there, which ends the process without our last word.
        signal.signal(signal.SIGTERM, on_sigterm)
        configs = [
            {
                "trial_id": str(plan.trial_id),
                "seed": plan.seed,
                "folder": str(plan.folder),
                "data_root": str(plan.data_root),
                "kind": str(kind_of(spec)),
                "spec": spec.model_dump_json(),
            }
            for plan in plans
        ]
        recorder = _Recorder(sink)
        tuner = tune.Tuner(
            TrialTrainable,
            param_space={"plan": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=str(self._results.parent),
                name=self._results.name,
                callbacks=[recorder],
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
            if recorder.error is not None:
                raise recorder.error from None
            raise


class _Recorder(tune.Callback):
    """Hands on what the trials report: the single writer of a search."""

    def __init__(self, sink: TrialSink) -> None:
        self._sink = sink
        self.error: Exception | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a resuming of its own. A search is resumed by a new Tune run
        # over the open trials instead, which needs nothing of this one.
        return (object, ())

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        with self._remembering():
            self._sink.starting(_trial_id(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        trial_id = _trial_id(trial)
        with self._remembering():
            if started := result.get("started"):
                self._sink.started(trial_id, **started)
            if report := result.get("report"):
                self._sink.epoch_ended(trial_id, from_report(report))
            if failure := result.get("failure"):
                self._sink.failed(trial_id, Reason(failure["reason"]), failure["message"])
            if derived := result.get("derived"):
                self._sink.succeeded(trial_id, parse(derived), result.get("test_result"))

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        failure = _explain_crash(trial)
        with self._remembering():
            self._sink.interrupted(
                _trial_id(trial), f"It goes on from its checkpoint after: {failure.message}"
            )

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        failure = _explain_crash(trial)
        with self._remembering():
            self._sink.failed(_trial_id(trial), failure.reason, failure.message)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error
            raise


def _trial_id(trial: TuneTrial) -> UUID:
    return UUID(trial.config["plan"]["trial_id"])


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
