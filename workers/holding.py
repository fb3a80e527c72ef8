"""A search that a runner holds: its lease is kept and its log copied, whatever the runner does.

Both begin as soon as the runner is told what to run, in a thread if need be: it may be loading Ray
at that moment, or waiting for a cluster that does not answer.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy.orm import Session

from store import artifacts, endings, leases, logs
from store.leases import Lease
from store.sessions import database_url, make_engine, transaction
from store.states import Reason
from workers import ray_token, secrets
from workers.exits import Exit
from workers.lease_keeper import LeaseKeeper, Verdict
from workers.log_keeping import LogKeeper
from workers.runner_processes import Assignment
from workers.settings import WorkerSettings
from workers.trials import Halt

_LOG = logging.getLogger(__name__)

_FINISHING_SECONDS: Final = 0.1
_LOG_SECONDS: Final = 3.0
"""How long a runner that has to end at once waits for a storage to take the end of its log."""


class Held:
    """What a runner was given. Its lease is kept until `close`, or until the process ends for it.

    Args:
        assignment: What it was given.
        settings: Leases, folders, and the database.

    Attributes:
        lease: The lease.
        engine: The database.
        halt: Set while the search is to be let go after the epochs that run.
        finishing: Set while no trial runs and the search is let go, with which its lease goes.
    """

    def __init__(self, assignment: Assignment, settings: WorkerSettings) -> None:
        self.lease = assignment.lease
        self._max_failures = settings.max_failures
        url = database_url(settings)
        self.engine = make_engine(url)
        self.halt = Halt()
        self.finishing = threading.Event()
        self._log = _keep_log(assignment.log, self.lease, settings, url)
        self._keeper = LeaseKeeper(
            self.engine, url, self.lease, settings.lease, self._stop, self.halt
        )
        self._keeper.start()

    def give_back(self, reason: Reason, message: str) -> None:
        """Puts the search back in the queue.

        Raises:
            LeaseLostError: Somebody else holds it, or nobody.
        """
        with transaction(self.engine) as session:
            leases.give_back(
                session,
                self.lease,
                reason=reason,
                message=message,
                max_failures=self._max_failures,
            )

    def requeue_and_end(self) -> None:
        """Puts the search back in the queue because the process has to stop, and ends it."""
        self.finishing.set()
        _LOG.info("asked to stop; search %s goes back to the queue", self.lease.search_id)
        message = "Its dispatcher was asked to stop; it goes on from its last checkpoint."
        self._end(lambda: self.give_back(Reason.SHUTDOWN, message), Exit.REQUEUED)

    def close(self) -> None:
        """Lets go of the lease's keeper and of the log."""
        self._keeper.close()
        self._log.close()

    def _stop(self, verdict: Verdict) -> None:
        # The main thread is inside Ray, which offers no safe way out from another thread; and
        # what is left to do is one statement.
        if verdict is Verdict.CANCELLED:
            self._end(lambda: self._last(endings.cancelled), Exit.CANCELLED)
        if verdict is Verdict.TIME_IS_UP:
            self._end(lambda: self._last(endings.time_is_up), Exit.ENDED)
        while self.finishing.is_set():
            # The lease goes with the search's end, or its return to the queue, which is under way;
            # so does this process, unless there is more to run after all.
            time.sleep(_FINISHING_SECONDS)
        _LOG.error("the lease of search %s is lost; stopping without a word", self.lease.search_id)
        self._end(None, Exit.LEASE_LOST)

    def _last(self, write: Callable[[Session, Lease], object]) -> None:
        with transaction(self.engine) as session:
            write(session, self.lease)

    def _end(self, last_word: Callable[[], None] | None, status: Exit) -> None:
        """Ends the process from any thread, after one last write."""
        if last_word is not None:
            try:
                last_word()
            except Exception:
                # The lease runs out by itself and brings the search back.
                _LOG.exception("the last word could not be written")
        logging.shutdown()
        self._log.close(_LOG_SECONDS)
        os._exit(status)


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
