"""Runs the trials of a search as Ray Tune trials on a cluster."""

import logging
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import ray
from ray import cloudpickle, tune
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.result import DONE
from ray.tune.search import Searcher

from search_core.genotype import parse
from store.artifacts import ArtifactFolder
from store.jobs import JobSpec, kind_of
from store.room import Node, num_places
from store.states import Reason
from workers.capacity import living_nodes, to_node
from workers.failures import Failure, explain, out_of_memory
from workers.ray_nodes import Patience, is_lost
from workers.reports import from_report
from workers.trainable import TrialTrainable, give_up, to_config
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
        errors = _Errors()
        halting = _Halting(halt)
        tuner = tune.Tuner(
            TrialTrainable,
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                search_alg=_Planner(plans, errors, halt, self._logs, self._attempt),
                num_samples=plans.num_open,
                scheduler=stopping,
                # Loading PyTorch takes seconds, and some epochs less than one.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(self._results.parent),
                name=self._results.name,
                callbacks=[
                    _Recorder(
                        sink,
                        stopping,
                        errors,
                        max_failures=self._max_failures,
                        halting=halting,
                        node_losses=self._node_losses,
                    ),
                    _NodeWatch(Patience(self._patience), errors),
                ],
                stop=halting,
                # The trials keep their own checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                # The recorder counts failures.
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
        self,
        plans: TrialPlans,
        errors: _Errors,
        halt: threading.Event,
        logs: ArtifactFolder,
        attempt: int,
    ) -> None:
        super().__init__()
        self._halt = halt
        self._logs = logs
        self._attempt = attempt
        self._plans = plans
        self._errors = errors
        self._live: set[str] = set()
        self._allowed = plans.most_live or plans.num_open
        self._most_live = self._allowed

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What Tune's next trial runs; `FINISHED` after the last, None for not now."""
        if self._halt.is_set():
            return Searcher.FINISHED  # type: ignore[no-any-return]
        if len(self._live) >= self._most_live:
            return None
        with self._errors.kept():
            plans = self._plans.next()
        if plans is None:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        spec = plans[0].spec
        if self._plans.are_drawn_late:
            self._most_live = min(self._allowed, _num_places(spec))
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


class _Halting(tune.Stopper):
    """Stops Tune's trials between two epochs once it is asked to.

    Attributes:
        running: Tune's trials that train now.
        stopped: Those that were stopped so, and have not ended by themselves.
    """

    def __init__(self, halt: threading.Event) -> None:
        self._halt = halt
        self.running: set[str] = set()
        self.stopped: set[str] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial goes no further than what it has just reported."""
        if not self._halt.is_set() or result.get(DONE):
            return False
        self.stopped.add(trial_id)
        return True

    def stop_all(self) -> bool:
        """Whether also those that wait for room are given up: once none is within an epoch."""
        return self._halt.is_set() and not self.running

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # As of the recorder.
        return (object, ())


class _Recorder(tune.Callback):
    """Hands on what the trials report: the single writer of a search.

    One of Tune's trials may be a stack of ours. Of those that have ended, a process that is lost
    and started again says once more how; that is no news.

    Tune counts failures without asking why, so they are counted here, and Tune is told to go on
    whatever happens: the loss of a node is no crash, unless the trial loses more of them in a row
    than a cluster loses by itself.
    """

    def __init__(
        self,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        errors: _Errors,
        *,
        halting: _Halting,
        max_failures: int,
        node_losses: int,
    ) -> None:
        self._halting = halting
        self._sink = sink
        self._stopping = stopping
        self._errors = errors
        self._max_failures = max_failures
        self._node_losses = node_losses
        self._ended: set[UUID] = set()
        # Of Tune's trials, by their ids:
        self._nodes: dict[str, str] = {}
        """Ray's id of the node, once the trial has said where it is."""
        self._losses: Counter[str] = Counter()
        """Nodes lost since the trial last completed an epoch."""
        self._crashes: Counter[str] = Counter()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a resuming of its own. A search is resumed by a new Tune run
        # over the open trials instead, which needs nothing of this one.
        return (object, ())

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self._halting.running.add(trial.trial_id)
        self._nodes.pop(trial.trial_id, None)
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
        is_halted = trial.trial_id in self._halting.stopped
        if "ray_node" in result:
            self._nodes[trial.trial_id] = result["ray_node"]
        with self._errors.kept():
            for trial_id in self._open(trial):
                if news := result["trials"].get(str(trial_id)):
                    if "started" not in news:
                        self._losses[trial.trial_id] = 0
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
        self._halting.running.discard(trial.trial_id)
        failure = self._why(trial)
        with self._errors.kept():
            if self._goes_on(trial, failure):
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
        failure = self._why(trial)
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

    def _goes_on(self, trial: TuneTrial, failure: Failure) -> bool:
        """Counts a failure; whether the trial may have one more."""
        key = trial.trial_id
        if failure.reason is Reason.NODE_LOST:
            self._losses[key] += 1
            if self._losses[key] <= self._node_losses:
                return True
        self._crashes[key] += 1
        return self._crashes[key] <= self._max_failures

    def _why(self, trial: TuneTrial) -> Failure:
        failure = _explain_crash(trial)
        if failure.process_lost and is_lost(self._nodes.get(trial.trial_id)):
            return Failure(Reason.NODE_LOST, "Its node was lost.", retry=True)
        return failure


class _NodeWatch(tune.Callback):
    """Ends a run whose trials can be placed nowhere any more."""

    def __init__(self, patience: Patience, errors: _Errors) -> None:
        self._patience = patience
        self._errors = errors

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # As of the recorder.
        return (object, ())

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Called several times a second, while trials wait too."""
        with self._errors.kept():
            for trial in trials[:1]:  # all need the same
                self._patience.check(to_node(trial.placement_group_factory.required_resources))


def _num_places(spec: JobSpec) -> int:
    """Processes of the search that the living nodes can run at once, at least one."""
    resources = spec.resources
    need = Node(resources.cpus, resources.gpus, custom=resources.custom)
    return max(1, sum(num_places(node, need) for node in living_nodes()))


def _trial_ids(trial: TuneTrial) -> list[UUID]:
    return [UUID(each["trial_id"]) for each in trial.config["plan"]["trials"]]


def _explain_crash(trial: TuneTrial) -> Failure:
    """What ended a trial's process, or was raised in it."""
    error = _error_of(trial)
    if isinstance(error, RayTaskError):
        return explain(error.cause)
    if isinstance(error, OutOfMemoryError):
        return out_of_memory("Its node ran out of memory and Ray stopped the trial.")
    return Failure(
        Reason.TRIAL_CRASHED,
        "Its process was lost. The log of the search's runner says more.",
        retry=True,
        process_lost=True,
    )


def _error_of(trial: TuneTrial) -> Exception | None:
    """What Tune wrote about a trial's latest failure; None where it has nothing but text.

    Tune looks for it where a trial's folder goes when the trial has ended, which is too late.
    """
    if trial.pickled_error_file is None:
        return None
    file = Path(trial.pickled_error_file)
    if not file.exists():
        return None
    error: Exception = cloudpickle.loads(file.read_bytes())
    file.unlink()  # the next failure may leave none, and is not this one
    return error
