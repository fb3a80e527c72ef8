"""Runs the trials of a search as Ray Tune trials on a cluster."""

import logging
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from store.artifacts import ArtifactFolder
from store.states import Reason
from workers.capacity import to_node
from workers.ray_failures import Failures
from workers.ray_nodes import Patience
from workers.ray_planner import Planner
from workers.ray_recorder import Recorder
from workers.ray_run import Halting, KeptErrors
from workers.trainable import TrialTrainable
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
        node_losses: Losses of a trial's node in a row that are no crashes.
        patience: Seconds for which no node may be large enough for a trial.
    """

    def __init__(
        self,
        address: str,
        results: Path,
        *,
        logs: ArtifactFolder,
        attempt: int,
        max_failures: int,
        node_losses: int,
        patience: float,
    ) -> None:
        self._address = address
        self._results = results
        self._logs = logs
        self._attempt = attempt
        self._max_failures = max_failures
        self._node_losses = node_losses
        self._patience = patience

    def run(
        self,
        plans: TrialPlans,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
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
        connect(self._address)
        errors = KeptErrors()
        halting = Halting(halt)
        tuner = tune.Tuner(
            TrialTrainable,
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                search_alg=Planner(plans, errors, halt, self._logs, self._attempt),
                num_samples=plans.num_open,
                scheduler=stopping,
                # Loading PyTorch takes seconds, and some epochs less than one.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(self._results.parent),
                name=self._results.name,
                callbacks=[
                    Recorder(
                        sink,
                        stopping,
                        errors,
                        Failures(self._max_failures, self._node_losses),
                        halting,
                    ),
                    _NodeWatch(Patience(self._patience), errors),
                ],
                stop=halting,
                # The trials keep their own checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                # `Failures` counts them.
                failure_config=tune.FailureConfig(max_failures=-1),
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


def connect(address: str) -> None:
    """Joins a cluster as the driver of one search, unless this process has.

    Raises:
        ExecutorError: No cluster answers.
    """
    if ray.is_initialized():
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=True)
    except ConnectionError as error:
        raise ExecutorError(
            f"No Ray cluster answers at {address}: {error}", Reason.NO_CLUSTER
        ) from error
    # Ray puts a handler of its own there, which ends the process without our last word.
    signal.signal(signal.SIGTERM, on_sigterm)


class _NodeWatch(tune.Callback):
    """Ends a run whose trials can be placed nowhere any more."""

    def __init__(self, patience: Patience, errors: KeptErrors) -> None:
        self._patience = patience
        self._errors = errors

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # As of `Halting`.
        return (object, ())

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Called several times a second, while trials wait too."""
        with self._errors.kept():
            for trial in trials[:1]:  # all need the same
                self._patience.check(to_node(trial.placement_group_factory.required_resources))
