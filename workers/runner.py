"""Runs one leased search or training to its end: `python -m workers.runner SEARCH_ID`.

A dispatcher starts it, with the lease's token in `DARTBOARD_LEASE_TOKEN`. The process ends at once
when the lease is lost; Ray then frees what its trials held, because their driver is gone.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from store import leases, recording, searches
from store.errors import LeaseLostError
from store.jobs import JobSpec, parse_spec
from store.leases import Lease
from store.models import Trial
from store.sessions import database_url, make_engine, transaction
from store.states import ENDED, TRIAL_ENDED, JobKind, Reason, SearchStatus
from workers import ray_token
from workers.exits import Exit
from workers.failures import explain
from workers.lease_keeper import LeaseKeeper, Verdict
from workers.plans import StoredPlans
from workers.recording import StoreSink
from workers.settings import WorkerSettings
from workers.trials import EarlyStopping, ExecutorError, TrialExecutor

_LOG = logging.getLogger(__name__)


def main() -> int:
    """Runs the search that the command line names.

    Returns:
        An `Exit`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = WorkerSettings()
    lease = Lease(
        UUID(sys.argv[1]),
        UUID(os.environ.pop("DARTBOARD_LEASE_TOKEN")),
        int(os.environ.pop("DARTBOARD_ATTEMPT")),
    )
    url = database_url(settings)
    engine = make_engine(url)

    def stop(verdict: Verdict) -> None:
        # The main thread is inside Ray, which offers no safe way out from another thread; and
        # what is left to do is one statement.
        if verdict is Verdict.CANCELLED:
            _end_with(lambda: _last(engine, lease, recording.cancelled), Exit.CANCELLED)
        if verdict is Verdict.TIME_IS_UP:
            _end_with(lambda: _last(engine, lease, recording.time_is_up), Exit.ENDED)
        _LOG.error("the lease of search %s is lost; stopping without a word", lease.search_id)
        _end_with(None, Exit.LEASE_LOST)

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
        _LOG.info("asked to stop; search %s goes back to the queue", lease.search_id)
        message = "Its dispatcher was asked to stop; it goes on from its last checkpoint."
        _end_with(lambda: give_back(Reason.SHUTDOWN, message), Exit.REQUEUED)

    def shut_down(signum: int, frame: FrameType | None) -> None:
        # Not here: the main thread may have been interrupted inside a statement of its own.
        threading.Thread(target=requeue_and_end, name="shut-down").start()

    halt = threading.Event()
    keeper = LeaseKeeper(engine, url, lease, settings.lease, stop, halt)
    keeper.start()
    signal.signal(signal.SIGTERM, shut_down)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = run(engine, lease, settings, halt=halt)
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
    finally:
        keeper.close()
    _LOG.info("search %s %s", lease.search_id, status)
    return Exit.ENDED if status in ENDED else Exit.LET_GO


def run(
    engine: Engine,
    lease: Lease,
    settings: WorkerSettings,
    executor: TrialExecutor | None = None,
    halt: threading.Event | None = None,
) -> SearchStatus:
    """Runs the open trials of a leased search and ends it, or lets go of it when asked to.

    Args:
        engine: The database.
        lease: The lease, kept by somebody else meanwhile.
        settings: Where checkpoints go, and how patient to be.
        executor: What runs the trials; the one that the settings name when None.
        halt: Set while the search is to be let go after the epochs that run.

    Returns:
        How the search ended, or where it waits.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
        ExecutorError: The trials cannot be run now; they may be later.
    """
    sink = StoreSink(engine, lease, patience=settings.lease_seconds)
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
    halt = halt or threading.Event()
    # A failed trial that its user retries while others run is open once these have ended.
    while (status := sink.finish()) is None:
        if halt.is_set():
            if (status := sink.halted()) is not None:
                return status
            # Its user has thought better of it.
            halt.clear()
        trials = _open(sink)
        plans = StoredPlans(
            spec,
            trials,
            sink,
            folder=settings.checkpoints / str(lease.search_id),
            data_root=settings.data_root,
        )
        executor = executor or make_executor(settings, lease)
        num_ended = sink.num_ended
        executor.run(plans, sink, _stopping(spec, sink), halt)
        if sink.num_ended < num_ended + len(trials) and not halt.is_set():
            raise ExecutorError("A trial ended without a result", Reason.RUNNER_CRASHED)
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

        return InlineTrials()
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
        settings.checkpoints / str(lease.search_id) / f"tune-{lease.attempt}",
        max_failures=settings.trial_failures,
        node_losses=settings.node_losses,
        patience=settings.node_patience_seconds,
    )


def _last(engine: Engine, lease: Lease, write: Callable[[Session, Lease], object]) -> None:
    with transaction(engine) as session:
        write(session, lease)


def _end_with(last_word: Callable[[], None] | None, status: Exit) -> None:
    """Ends the process from any thread, after one last write."""
    if last_word is not None:
        try:
            last_word()
        except Exception:
            # The lease runs out by itself and brings the search back.
            _LOG.exception("the last word could not be written")
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
