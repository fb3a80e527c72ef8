"""Runs one leased search or training to its end: `python -m workers.runner`.

A dispatcher starts it, maybe before there is anything to run, and tells it what by one line of
standard input (`workers.runner_processes`). The process ends at once when the lease is lost; Ray
then frees what its trials held, because their driver is gone.
"""

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from store import artifacts, leases, logs, recording, searches
from store.errors import LeaseLostError
from store.jobs import JobSpec, parse_spec
from store.leases import Lease
from store.models import Trial
from store.sessions import database_url, make_engine, transaction
from store.states import ENDED, TRIAL_ENDED, JobKind, Reason, SearchStatus
from workers import ray_token, secrets
from workers.exits import Exit
from workers.failures import explain
from workers.lease_keeper import LeaseKeeper, Verdict
from workers.log_keeping import LogKeeper
from workers.plans import StoredPlans
from workers.recording import StoreSink
from workers.runner_processes import Assignment
from workers.settings import WorkerSettings
from workers.trials import EarlyStopping, ExecutorError, Halt, TrialExecutor
from workers.warming import warm_up

_LOG = logging.getLogger(__name__)

_FINISHING_SECONDS: Final = 0.1
_LOG_SECONDS: Final = 3.0
"""How long a runner that has to end at once waits for a storage to take the end of its log."""


def main() -> int:
    """Runs the search that it is given.

    Returns:
        An `Exit`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = WorkerSettings()
    assignment = _wait_for_work(settings)
    if assignment is None:
        return Exit.NOTHING_TO_RUN
    lease = assignment.lease
    url = database_url(settings)
    engine = make_engine(url)
    log = _keep_log(assignment.log, lease, settings, url)

    def end_with(last_word: Callable[[], None] | None, status: Exit) -> None:
        _end_with(last_word, status, log)

    finishing = threading.Event()

    def stop(verdict: Verdict) -> None:
        # The main thread is inside Ray, which offers no safe way out from another thread; and
        # what is left to do is one statement.
        if verdict is Verdict.CANCELLED:
            end_with(lambda: _last(engine, lease, recording.cancelled), Exit.CANCELLED)
        if verdict is Verdict.TIME_IS_UP:
            end_with(lambda: _last(engine, lease, recording.time_is_up), Exit.ENDED)
        while finishing.is_set():
            # The lease goes with the search's end, or its return to the queue, which is under way;
            # so does this process, unless there is more to run after all.
            time.sleep(_FINISHING_SECONDS)
        _LOG.error("the lease of search %s is lost; stopping without a word", lease.search_id)
        end_with(None, Exit.LEASE_LOST)

    def give_back(reason: Reason, message: str) -> None:
        with transaction(engine) as session:
            leases.give_back(
                session,
                lease,
                reason=reason,
                message=message,
                max_failures=settings.max_failures,
            )

    def requeue_and_end() -> None:
        finishing.set()
        _LOG.info("asked to stop; search %s goes back to the queue", lease.search_id)
        message = "Its dispatcher was asked to stop; it goes on from its last checkpoint."
        end_with(lambda: give_back(Reason.SHUTDOWN, message), Exit.REQUEUED)

    def shut_down(signum: int, frame: FrameType | None) -> None:
        # Not here: the main thread may have been interrupted inside a statement of its own.
        threading.Thread(target=requeue_and_end, name="shut-down").start()

    halt = Halt()
    keeper = LeaseKeeper(engine, url, lease, settings.lease, stop, halt)
    keeper.start()
    signal.signal(signal.SIGTERM, shut_down)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _run_to_exit(engine, lease, settings, give_back, halt, finishing)
    finally:
        keeper.close()
        log.close()


def _wait_for_work(settings: WorkerSettings) -> Assignment | None:
    """Warms up, unless there is something to run already; then waits for that."""
    has_work, _, _ = select.select([sys.stdin], [], [], 0)
    if not has_work:
        try:
            warm_up(settings)
        except ExecutorError as error:
            # Whoever is given work meanwhile says so again, and puts it back.
            _LOG.warning("not ready: %s", error)
    assignment = Assignment.read(sys.stdin.readline())
    if assignment is not None:
        # What it wrote until now is nobody's; from here on it is this search's.
        sys.stdout.flush()
        sys.stderr.flush()
        output = os.open(assignment.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.close(output)
    return assignment


def _run_to_exit(
    engine: Engine,
    lease: Lease,
    settings: WorkerSettings,
    give_back: Callable[[Reason, str], None],
    halt: Halt,
    finishing: threading.Event,
) -> Exit:
    try:
        status = run(engine, lease, settings, halt=halt, finishing=finishing)
    except LeaseLostError as error:
        _LOG.error("%s; stopping without a word", error)
        return Exit.LEASE_LOST
    except ExecutorError as error:
        _LOG.error("%s", error)
        give_back(error.reason, f"{error}.")
        return Exit.REQUEUED
    except Exception as error:
        _LOG.exception("search %s cannot go on", lease.search_id)
        give_back(Reason.RUNNER_CRASHED, explain(error).message)
        return Exit.REQUEUED
    _LOG.info("search %s %s", lease.search_id, status)
    return Exit.ENDED if status in ENDED else Exit.LET_GO


def run(
    engine: Engine,
    lease: Lease,
    settings: WorkerSettings,
    executor: TrialExecutor | None = None,
    *,
    halt: Halt | None = None,
    finishing: threading.Event | None = None,
) -> SearchStatus:
    """Runs the open trials of a leased search and ends it, or lets go of it when asked to.

    Args:
        engine: The database.
        lease: The lease, kept by somebody else meanwhile.
        settings: Where checkpoints go, and how patient to be.
        executor: What runs the trials; the one that the settings name when None.
        halt: Set while the search is to be let go after the epochs that run.
        finishing: Set while no trial runs and the search is let go, with which its lease goes.

    Returns:
        How the search ended, or where it waits.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
        ExecutorError: The trials cannot be run now; they may be later.
    """
    sink = StoreSink(engine, lease, patience=settings.lease_seconds)
    finishing = finishing or threading.Event()
    with transaction(engine) as session:
        search = searches.get(session, lease.search_id)
    try:
        spec = parse_spec(JobKind(search.kind), search.spec)
    except ValidationError as error:
        message = f"This version does not understand its spec; submit it again. {error}"
        while (status := sink.finish()) is None:
            for trial in _open(sink):
                sink.failed(trial.id, Reason.INVALID_INPUT, message)
        return status
    halt = halt or Halt()
    # A failed trial that its user retries while others run is open once these have ended.
    while (status := _let_go(sink.finish, finishing)) is None:
        if halt.is_set():
            if (status := _let_go(sink.halted, finishing)) is not None:
                return status
            # Its user has thought better of it.
            halt.clear()
        trials = _open(sink)
        plans = StoredPlans(
            spec,
            trials,
            sink,
            folder=artifacts.checkpoints_of(settings.storage_root, lease.search_id),
            data_root=settings.data_root,
            most_live=search.max_live,
        )
        executor = executor or make_executor(settings, lease)
        num_ended = sink.num_ended
        halt.begin()
        executor.run(plans, sink, _stopping(spec, sink), halt)
        if sink.num_ended < num_ended + len(trials) and not halt.was_set:
            raise ExecutorError("A trial ended without a result", Reason.RUNNER_CRASHED)
    return status


def _let_go(
    write: Callable[[], SearchStatus | None], finishing: threading.Event
) -> SearchStatus | None:
    finishing.set()
    status = write()
    if status is None:
        finishing.clear()
    return status


def _open(sink: StoreSink) -> list[Trial]:
    return [trial for trial in sink.trials() if trial.status not in TRIAL_ENDED]


def _stopping(spec: JobSpec, sink: StoreSink) -> EarlyStopping | None:
    scheduler = spec.trials.scheduler
    if scheduler is None:
        return None
    # Here and not above: it loads Ray.
    from workers.asha import Asha

    return Asha(scheduler, max(trial.epochs for trial in sink.trials()), sink.epochs())


def make_executor(settings: WorkerSettings, lease: Lease) -> TrialExecutor:
    """The executor that the settings name.

    Raises:
        ExecutorError: The settings name no Ray cluster.
    """
    if settings.executor == "inline":
        from workers.inline_trials import InlineTrials

        return InlineTrials(max_failures=settings.trial_failures)
    if not settings.ray_address:
        raise ExecutorError(
            "No Ray cluster: set DARTBOARD_RAY_ADDRESS to its head's address, "
            "or run `dartboard up`, which starts one",
            Reason.NO_CLUSTER,
        )
    ray_token.prepare(settings.home)
    from workers.ray_trials import RayTrials

    return RayTrials(
        settings.ray_address,
        settings.tune_results / f"{lease.search_id}-{lease.attempt}",
        logs=artifacts.logs_of(settings.storage_root, lease.search_id),
        attempt=lease.attempt,
        max_failures=settings.trial_failures,
        node_losses=settings.node_losses,
        patience=settings.node_patience_seconds,
    )


def _keep_log(file: str, lease: Lease, settings: WorkerSettings, url: str) -> LogKeeper:
    """Copies this process's log into the storage while it runs."""
    if settings.executor == "ray":
        ray_token.prepare(settings.home)  # a secret, too
    keeper = LogKeeper(
        os.open(file, os.O_RDONLY),
        artifacts.logs_of(settings.storage_root, lease.search_id),
        [logs.runner_log(lease.attempt)],
        secrets={*secrets.known(url, settings.storage), str(lease.token)},
    )
    keeper.start()
    return keeper


def _last(engine: Engine, lease: Lease, write: Callable[[Session, Lease], object]) -> None:
    with transaction(engine) as session:
        write(session, lease)


def _end_with(last_word: Callable[[], None] | None, status: Exit, log: LogKeeper) -> None:
    """Ends the process from any thread, after one last write."""
    if last_word is not None:
        try:
            last_word()
        except Exception:
            # The lease runs out by itself and brings the search back.
            _LOG.exception("the last word could not be written")
    logging.shutdown()
    log.close(_LOG_SECONDS)
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
