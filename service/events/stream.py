"""A search's events as Server-Sent Events: each once, in order, until the one that ends it."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.orm import Session

from service.caller import Caller
from service.events.schemas import EventAnswer
from service.wiring import Wiring
from store import access, events, searches
from store.access import Principal
from store.errors import DatabaseUnavailableError, InvalidKeyError, NotFoundError
from store.states import ENDED, JobKind

_BATCH: Final = 200


@dataclass(frozen=True)
class Batch:
    """The next events of a search.

    Attributes:
        events: The next ones, at most `_BATCH`.
        is_last: Whether the search has ended and nothing comes after these.
    """

    events: tuple[EventAnswer, ...]
    is_last: bool


def read_batch(
    session: Session, who: Principal, search_id: UUID, after: int, kind: JobKind | None = None
) -> Batch:
    """The events after a number.

    Args:
        session: The caller's session.
        who: Who follows the search.
        search_id: The search.
        after: The number.
        kind: What it has to be; None takes either.

    Raises:
        NotFoundError: There is no such search.
    """
    access.require_search(session, who, search_id, kind)
    # The status first: events that a search appended until it ended are then all in the page.
    has_ended = searches.get(session, search_id, kind).status in ENDED
    page = events.page(session, search_id, after=after, limit=_BATCH)
    return Batch(tuple(EventAnswer.of(event) for event in page), has_ended and len(page) < _BATCH)


async def stream(
    wiring: Wiring, caller: Caller, search_id: UUID, after: int, first: Batch
) -> AsyncGenerator[bytes]:
    """The lines of the stream.

    Holds a database connection only while it reads. Ends after the event that ends the search, or
    when the server shuts down; a client that comes back with the last number it saw goes on there.

    Args:
        wiring: The application's.
        caller: Who follows the search; the stream ends when the key does.
        search_id: The search.
        after: Number of the last event that the client has.
        first: What follows it, read before the answer began.

    Yields:
        Events and, when nothing happens for long, comments.
    """
    settings = wiring.settings
    with wiring.feed.subscribe(search_id) as subscription:
        # Nothing rang for what was appended between reading `first` and subscribing.
        subscription.ring()
        # A first comment: the client's headers and any proxy's buffer are through at once.
        yield b": dartboard events\n\n"
        spoke_at = time.monotonic()
        batch = first
        while True:
            for event in batch.events:
                yield _line(event)
                after = event.number
                spoke_at = time.monotonic()
            if batch.is_last or wiring.feed.closed:
                return
            if len(batch.events) < _BATCH:
                until_ping = spoke_at + settings.stream_ping_seconds - time.monotonic()
                if until_ping <= 0:
                    yield KEEPALIVE_COMMENT
                    spoke_at = time.monotonic()
                    until_ping = settings.stream_ping_seconds
                await subscription.wait(min(settings.stream_poll_seconds, until_ping))
            try:
                batch = await wiring.feed.reads.read(
                    (caller.digest, search_id, after),
                    partial(caller.run, partial(read_batch, search_id=search_id, after=after)),
                )
            except (InvalidKeyError, NotFoundError):
                # Revoked, or no longer shared, meanwhile: whoever comes back is told so.
                return
            except DatabaseUnavailableError:
                # The stream outlives a restart of PostgreSQL; the feed rings when it is back.
                batch = Batch((), is_last=False)


def _line(event: EventAnswer) -> bytes:
    return format_sse_event(
        id=str(event.number), event=event.kind, data_str=event.model_dump_json()
    )
