"""Keeps a runner's lease, and tells it when to stop."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, auto

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from store import leases
from store.errors import LeaseLostError
from store.events import QUEUE_CHANNEL
from store.leases import Lease
from store.notifications import Listener, listening
from store.sessions import transaction


class Verdict(Enum):
    """Why a runner has to stop."""

    CANCELLED = auto()
    """Its user asked to cancel the search."""
    LOST = auto()
    """The lease is, or may be, somebody else's."""


class LeaseKeeper:
    """A thread that renews a lease every third of its duration, and at every notification.

    Args:
        engine: The database.
        url: Its URL, for the listening connection.
        lease: The lease to keep.
        duration: How long each renewal holds.
        on_verdict: Called once, from the thread, when the runner has to stop.
    """

    def __init__(
        self,
        engine: Engine,
        url: str,
        lease: Lease,
        duration: timedelta,
        on_verdict: Callable[[Verdict], None],
    ) -> None:
        self._engine = engine
        self._url = url
        self._lease = lease
        self._duration = duration
        self._on_verdict = on_verdict
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)

    def start(self) -> None:
        """Starts renewing."""
        self._thread.start()

    def close(self) -> None:
        """Stops renewing; the lease then ends by itself."""
        self._closed.set()

    def _keep(self) -> None:
        pause = self._duration.total_seconds() / 3
        # This process's own clock, which only measures how long ago a renewal was: a lease that
        # could not be renewed for its whole length may belong to another runner by now.
        held_until = time.monotonic() + self._duration.total_seconds()
        while not self._closed.is_set():
            try:
                with listening(self._url, [QUEUE_CHANNEL]) as listener:
                    while not self._closed.is_set():
                        asked = time.monotonic()
                        with transaction(self._engine) as session:
                            cancel = leases.renew(session, self._lease, duration=self._duration)
                        held_until = asked + self._duration.total_seconds()
                        if cancel:
                            self._on_verdict(Verdict.CANCELLED)
                            return
                        self._wait_for_word(listener, asked + pause)
            except LeaseLostError:
                if not self._closed.is_set():
                    self._on_verdict(Verdict.LOST)
                return
            except (DBAPIError, psycopg.Error):
                if time.monotonic() > held_until:
                    self._on_verdict(Verdict.LOST)
                    return
                self._closed.wait(min(1.0, pause))

    def _wait_for_word(self, listener: Listener, until: float) -> None:
        """Returns when it is time to renew, or when something happened to this search."""
        while (left := until - time.monotonic()) > 0 and not self._closed.is_set():
            notified = listener.wait(left)
            if any(notice.payload == str(self._lease.search_id) for notice in notified):
                return
