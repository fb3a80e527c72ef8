"""One listening connection per process that wakes every open event stream."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import UUID

import psycopg

from service.events.shared_reads import SharedReads
from store.events import DELIVERIES_CHANNEL, EVENTS_CHANNEL
from store.notifications import listening_async

_CHANNELS: Final = (EVENTS_CHANNEL, DELIVERIES_CHANNEL)
_RETRY_SECONDS: Final = (0.1, 0.5, 1.0, 2.0)

logger = logging.getLogger(__name__)


class Subscription:
    """A stream's bell: rung when its search may have new events, or when the stream has to end."""

    def __init__(self) -> None:
        """Starts silent."""
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes the stream, now or at its next wait."""
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Waits until the bell rings, at most so many seconds, and silences it.

        A ring between two waits is not lost: the second returns at once. Read the log after it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


class EventFeed:
    """Fans notifications out to subscriptions; holds the only connection that streams need."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet; `run` does.

        Args:
            url: The database, as `store.sessions.database_url` gives it.
        """
        self._url = url
        self._subscriptions: dict[str, set[Subscription]] = {}
        self.closed = False
        """Set when the process shuts down: streams end then, and their clients resume elsewhere."""
        self.connected = asyncio.Event()
        """Set while the feed listens."""
        self.reads: SharedReads[Any] = SharedReads()
        """What streams that were woken together read."""

    @contextmanager
    def subscribe(self, to: UUID | str) -> Iterator[Subscription]:
        """A subscription to one search's events, or to a channel, while the block runs.

        Args:
            to: The search's id; or the channel's name.
        """
        subscription = Subscription()
        # By the text of a notification: one that is no id of ours then wakes nobody.
        key = str(to)
        self._subscriptions.setdefault(key, set()).add(subscription)
        try:
            yield subscription
        finally:
            remaining = self._subscriptions[key]
            remaining.discard(subscription)
            if not remaining:
                del self._subscriptions[key]

    async def run(self) -> None:
        """Listens until it is cancelled; connects again when PostgreSQL was away."""
        failures = 0
        while True:
            try:
                async with listening_async(self._url, _CHANNELS) as notifications:
                    if failures:
                        logger.info("listening for events again")
                    failures = 0
                    self.connected.set()
                    # What was notified while nobody listened is in the log: all streams look.
                    self._ring_all()
                    async for notification in notifications:
                        is_event = notification.channel == EVENTS_CHANNEL
                        self._ring(notification.payload if is_event else notification.channel)
            except (psycopg.Error, OSError) as error:
                if not failures:
                    reason = str(error).partition("\n")[0]
                    logger.warning("not listening for events, streams poll meanwhile: %s", reason)
            finally:
                self.connected.clear()
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
            failures += 1

    def close(self) -> None:
        """Ends every stream, so that a server that shuts down does not wait for them."""
        self.closed = True
        self._ring_all()

    def _ring(self, key: str) -> None:
        for subscription in self._subscriptions.get(key, ()):
            subscription.ring()

    def _ring_all(self) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.ring()
