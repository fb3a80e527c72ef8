"""The events of a job as they happen, across broken connections and restarts of the server."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from pydantic import ValidationError

from dartboard.errors import (
    DartboardError,
    ServerFailedError,
    ServerUnreachableError,
    UnexpectedAnswerError,
)
from dartboard.models import Event, Job
from dartboard.transport import Transport, parse_answer

END_KINDS: Final = frozenset(
    f"{kind}.{end}"
    for kind in ("search", "training")
    for end in ("succeeded", "failed", "cancelled")
)
"""The events after which a search or a training does nothing more by itself."""

PATIENCE: Final = 60.0
"""Seconds to go on trying while nothing is heard of the server."""

_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)

OnTrouble = Callable[[DartboardError], None]


def follow(
    transport: Transport,
    path: str,
    *,
    after: int = 0,
    patience: float = PATIENCE,
    on_trouble: OnTrouble | None = None,
) -> Iterator[Event]:
    """Yields the events of a search, each once and in order, until the one that ends it for now.

    Args:
        transport: The server.
        path: Where the API has the search or the training.
        after: Skip events up to this number.
        patience: Seconds to go on trying while the server does not answer, once it has answered.
        on_trouble: Told of each failed connection, for display.

    Raises:
        NotFoundError: There is no such search.
        ServerUnreachableError: There is no server, or it did not come back.
    """
    silent_since: float | None = None
    num_failures = 0
    reached = False
    while True:
        try:
            with transport.events(f"{path}/events", after=after) as stream:
                reached = True
                for message in stream:
                    silent_since, num_failures = None, 0
                    event = _event(message.data)
                    if event.number <= after:
                        continue
                    after = event.number
                    yield event
                    # A trial that was retried may have made it go on after its end.
                    if event.kind in END_KINDS and _is_over(transport, path, after):
                        return
            # The server ended the stream: the search is over, or the server shuts down.
            if _is_over(transport, path, after):
                return
        except (ServerUnreachableError, ServerFailedError) as error:
            if not reached:
                raise
            now = time.monotonic()
            silent_since = silent_since or now
            if now - silent_since > patience:
                raise
            if on_trouble is not None:
                on_trouble(error)
        time.sleep(_PAUSES[min(num_failures, len(_PAUSES) - 1)])
        num_failures += 1


def _event(data: str) -> Event:
    try:
        return Event.model_validate_json(data)
    except ValidationError as error:
        raise UnexpectedAnswerError(
            f"the server sent an event that this version of Dartboard cannot read: {error}"
        ) from None


def _is_over(transport: Transport, path: str, after: int) -> bool:
    if not parse_answer(transport.get(path), Job).ended:
        return False
    rest = transport.get(f"{path}/events", params={"after": after, "limit": 1})
    return not rest.json()["items"]
