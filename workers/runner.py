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
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType

from pydantic import ValidationError
from sqlalchemy import Engine

from store import artifacts, searches
from store.errors import LeaseLostError
from store.jobs import JobSpec, parse_spec
from store.leases import Lease
from store.models import Trial
from store.sessions import transaction
from store.states import ENDED, TRIAL_ENDED, JobKind, Reason, SearchStatus
from workers import ray_token
from workers.exits import Exit
from workers.failures import explain
from workers.holding import Held
from workers.plans import StoredPlans
from workers.recording import StoreSink
from workers.runner_processes import Assignment
from workers.settings import WorkerSettings
from workers.trials import EarlyStopping, ExecutorError, Halt, TrialExecutor
from workers.warming import warm_up

_LOG = logging.getLogger(__name__)


def main() -> int:
    """Runs the search that it is given.

    Returns:
        An `Exit`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = WorkerSettings()
    held = _wait_for_work(settings)
    if held is None:
        return Exit.NOTHING_TO_RUN

    def shut_down(signum: int, frame: FrameType | None) -> None:
        # Not here: the main thread may have been interrupted inside a statement of its own.
        threading.Thread(target=held.requeue_and_end, name="shut-down").start()

    signal.signal(signal.SIGTERM, shut_down)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _run_to_exit(held, settings)
    finally:
        held.close()


def _wait_for_work(settings: WorkerSettings) -> Held | None:
    """Warms up, unless there is something to run already; then waits for that."""
    has_work, _, _ = select.select([sys.stdin], [], [], 0)
    if has_work:
        return _receive(settings)
    given: Future[Held | None] = Future()

    def receive() -> None:
        try:
            given.set_result(_receive(settings))
        except BaseException as error:
            given.set_exception(error)

    # Aside: what it is given while it still loads is held from then on.
    threading.Thread(target=receive, name="assignment", daemon=True).start()
    try:
        warm_up(settings)
    except ExecutorError as error:
        # Whoever is given work meanwhile says so again, and puts it back.
        _LOG.warning("not ready: %s", error)
    return given.result()


def _receive(settings: WorkerSettings) -> Held | None:
    """Waits for something to run, and holds it; None when nothing will come any more."""
    assignment = Assignment.read(sys.stdin.readline())
    if assignment is None:
        return None
    # What it wrote until now is nobody's; from here on it is this search's.
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(assignment.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    return Held(assignment, settings)


def _run_to_exit(held: Held, settings: WorkerSettings) -> Exit:
    search_id = held.lease.search_id
    try:
        status = run(held.engine, held.lease, settings, halt=held.halt, finishing=held.finishing)
    except LeaseLostError as error:
        _LOG.error("%s; stopping without a word", error)
        return Exit.LEASE_LOST
    except ExecutorError as error:
        _LOG.error("%s", error)
        held.give_back(error.reason, f"{error}.")
        return Exit.REQUEUED
    except Exception as error:
        _LOG.exception("search %s cannot go on", search_id)
        held.give_back(Reason.RUNNER_CRASHED, explain(error).message)
        return Exit.REQUEUED
    _LOG.info("search %s %s", search_id, status)
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


if __name__ == "__main__":
    sys.exit(main())
