"""Keeps a runner's lease, and tells it when to stop.

Two threads: one renews, and may be stuck in a connection that went silent; the other never touches
the database, and speaks up when no renewal has come through for a whole lease.
"""

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
from store.leases import Lease, Orders
from store.notifications import Listener, listening
from store.sessions import transaction


class Verdict(Enum):
    """Why a runner has to stop."""

    CANCELLED = auto()
    """Its user asked to cancel the search."""
    TIME_IS_UP = auto()
    """It ran for as long as its spec lets it."""
    LOST = auto()
    """The lease is, or may be, somebody else's."""


class LeaseKeeper:
    """Renews a lease every third of its duration, and at every notification about its search.

    Args:
        engine: The database.
        url: Its URL, for the listening connection.
        lease: The lease to keep.
        duration: How long each renewal holds.
        on_verdict: Called once, from another thread, when the runner has to stop at once.
        halt: Set while the runner is asked to let go after the epochs that run.
    """

    def __init__(
        self,
        engine: Engine,
        url: str,
        lease: Lease,
        duration: timedelta,
        on_verdict: Callable[[Verdict], None],
        halt: threading.Event | None = None,
    ) -> None:
        self._engine = engine
        self._url = url
        self._lease = lease
        self._duration = duration
        self._on_verdict = on_verdict
        self._halt = halt or threading.Event()
        self._closed = threading.Event()
        self._speaking = threading.Lock()
        self._pause = duration.total_seconds() / 3
        self._held_until = 0.0

    def start(self) -> None:
        """Starts renewing."""
        # This process's own clock, which only measures how long ago a renewal was asked for: a
        # lease that was not renewed for its whole length may belong to another runner by now.
        self._held_until = time.monotonic() + self._duration.total_seconds()
        for work in (self._keep, self._watch):
            threading.Thread(target=work, name=f"lease{work.__name__}", daemon=True).start()

    def close(self) -> None:
        """Stops renewing; the lease then ends by itself."""
        self._closed.set()

    def _keep(self) -> None:
        while not self._closed.is_set():
            try:
                with listening(self._url, [QUEUE_CHANNEL]) as listener:
                    while not self._closed.is_set():
                        asked = time.monotonic()
                        with transaction(self._engine) as session:
                            orders = leases.renew(session, self._lease, duration=self._duration)
                        self._held_until = asked + self._duration.total_seconds()
                        verdict = self._follow(orders)
                        if verdict is not None:
                            self._say(verdict)
                            return
                        pause = min(self._pause, orders.seconds_left or self._pause)
                        self._wait_for_word(listener, asked + pause)
            except LeaseLostError:
                self._say(Verdict.LOST)
                return
            except (DBAPIError, psycopg.Error):
                self._closed.wait(min(1.0, self._pause))

    def _follow(self, orders: Orders) -> Verdict | None:
        if orders.cancel:
            return Verdict.CANCELLED
        if orders.seconds_left is not None and orders.seconds_left <= 0:
            return Verdict.TIME_IS_UP
        if orders.halt:
            self._halt.set()
        else:
            self._halt.clear()
        return None

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._pause)):
            if time.monotonic() > self._held_until:
                self._say(Verdict.LOST)

    def _say(self, verdict: Verdict) -> None:
        with self._speaking:
            if self._closed.is_set():
                return
            self._closed.set()
        self._on_verdict(verdict)

    def _wait_for_word(self, listener: Listener, until: float) -> None:
        """Returns when it is time to renew, or when something happened to this search."""
        while (left := until - time.monotonic()) > 0 and not self._closed.is_set():
            notified = listener.wait(left)
            if any(notice.payload == str(self._lease.search_id) for notice in notified):
                return
