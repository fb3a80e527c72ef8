"""Delivers what waits in the database, in the background of an API process.

As many processes as one likes: each message is leased by one of them. What is sent while a process
is killed is sent again when its lease has run out.
"""

import asyncio
import logging
import random
from functools import partial
from typing import Final

from service.database import Database
from service.events.feed import EventFeed, Subscription
from service.webhooks.sending import Sender
from store import deliveries
from store.deliveries import Outcome, Outgoing
from store.errors import DatabaseUnavailableError
from store.events import DELIVERIES_CHANNEL

_LAST_SECONDS: Final = 3.0

_logger = logging.getLogger(__name__)


class Deliverer:
    """Claims messages and sends them, several at a time.

    Args:
        database: Where they wait.
        feed: Rings when there are new ones.
        sender: Sends them.
        at_once: Most on their way at a time.
        poll_seconds: How often to look for those whose next attempt is due.
        rng: Spreads the attempts after failures.
    """

    def __init__(
        self,
        database: Database,
        feed: EventFeed,
        sender: Sender,
        *,
        at_once: int,
        poll_seconds: float,
        rng: random.Random,
    ) -> None:
        self._database = database
        self._feed = feed
        self._sender = sender
        self._room = asyncio.Semaphore(at_once)
        self._poll_seconds = poll_seconds
        self._rng = rng
        self._on_their_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Delivers until it is cancelled; what is on its way then has a few seconds to arrive."""
        try:
            with self._feed.subscribe(DELIVERIES_CHANNEL) as bell:
                while True:
                    await self._deliver_next(bell)
        finally:
            if self._on_their_way:
                await asyncio.wait(self._on_their_way, timeout=_LAST_SECONDS)
            for late in self._on_their_way:
                late.cancel()

    async def _deliver_next(self, bell: Subscription) -> None:
        await self._room.acquire()
        message: Outgoing | None = None
        try:
            message = await self._database.run(deliveries.claim)
        except DatabaseUnavailableError as error:
            _logger.debug("what waits in the database waits on: %s", error)
        except Exception:
            _logger.exception("looking for messages to webhooks failed; trying again")
        if message is None:
            self._room.release()
            await bell.wait(self._poll_seconds)
            return
        task = asyncio.create_task(self._deliver(message, bell))
        self._on_their_way.add(task)
        task.add_done_callback(self._on_their_way.discard)

    async def _deliver(self, message: Outgoing, bell: Subscription) -> None:
        try:
            outcome = await self._sender.send(message)
            await self._settle(message, outcome)
        except DatabaseUnavailableError:
            _logger.warning(
                "what came of delivery %s is not recorded; it is sent again", message.id
            )
        except Exception:
            _logger.exception("delivery %s failed in a way nobody foresaw", message.id)
        finally:
            self._room.release()
            # What had to wait for this one may go now.
            bell.ring()

    async def _settle(self, message: Outgoing, outcome: Outcome) -> None:
        jitter = self._rng.uniform(-1, 1)
        disabled = await self._database.run(
            partial(deliveries.settle, sent=message, outcome=outcome, jitter=jitter)
        )
        if outcome.error:
            _logger.info("delivery %s, attempt %d: %s", message.id, message.attempt, outcome.error)
        if disabled:
            _logger.warning("a webhook has failed for days and is disabled: %s", message.url)
