"""What happens to a search, as it happens and afterwards."""

import time
from collections.abc import Iterator
from typing import Final, overload

from dartboard import streams
from dartboard.calls.refs import JobRef, SearchId, model_of, name_of, path_of
from dartboard.errors import (
    ServerFailedError,
    ServerUnreachableError,
    WaitTimeoutError,
)
from dartboard.lists import Page
from dartboard.models import (
    Event,
    EventPage,
    Log,
    Search,
    Training,
)
from dartboard.transport import Transport, parse_answer, segment

_PAGE: Final = 200
_ASK_EVERY: Final = 1.0


class FollowingCalls:
    """The calls of `dartboard.Client` about what happens to a search."""

    _transport: Transport

    def events(self, search_id: JobRef, *, after: int = 0, limit: int = _PAGE) -> EventPage:
        """A page of what happened to a search, oldest first.

        Args:
            search_id: The search.
            after: Only events with larger numbers.
            limit: Most events, at most 200.

        Raises:
            NotFoundError: There is no such search.
        """
        response = self._transport.get(
            f"{path_of(search_id)}/events", params={"after": after, "limit": limit}
        )
        return parse_answer(response, EventPage)

    def follow(
        self,
        search_id: JobRef,
        after: int = 0,
        *,
        patience: float = streams.PATIENCE,
        on_trouble: streams.OnTrouble | None = None,
    ) -> Iterator[Event]:
        """Yields what happens to a search, as it happens, until the search ends.

        A connection that breaks is made again, and no event is lost or repeated.

        Args:
            search_id: The search.
            after: Only events with larger numbers.
            patience: Seconds to go on trying while the server does not answer, once it has
                answered.
            on_trouble: Told of each connection that failed.

        Raises:
            NotFoundError: There is no such search.
            ServerUnreachableError: There is no server, or it did not come back in time.
        """
        return streams.follow(
            self._transport,
            path_of(search_id),
            after=after,
            patience=patience,
            on_trouble=on_trouble,
        )

    @overload
    def wait(self, search_id: Training, timeout: float | None = None) -> Training: ...

    @overload
    def wait(self, search_id: SearchId | Search, timeout: float | None = None) -> Search: ...

    def wait(self, search_id: JobRef, timeout: float | None = None) -> Search | Training:
        """Blocks until a search has ended, however it ended: look at its `status`.

        Args:
            search_id: The search.
            timeout: Seconds to wait at most; None waits as long as it takes.

        Returns:
            The search, ended.

        Raises:
            NotFoundError: There is no such search.
            WaitTimeoutError: It had not ended in time. It goes on.
            ServerUnreachableError: The server was away for longer than a minute.
        """
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        heard_at = now
        while True:
            try:
                job = parse_answer(self._transport.get(path_of(search_id)), model_of(search_id))
            except (ServerUnreachableError, ServerFailedError):
                if time.monotonic() - heard_at > streams.PATIENCE:
                    raise
            else:
                heard_at = time.monotonic()
                if job.ended:
                    return job
            left = _ASK_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"{name_of(search_id)} has not ended in {timeout:g} s")
            time.sleep(min(_ASK_EVERY, left))

    def logs(self, search_id: JobRef) -> tuple[Log, ...]:
        """The logs that are kept of a search: the newest attempt first, its runner's before others.

        Raises:
            NotFoundError: There is no such search.
            ServerFailedError: The storage of the logs is away.
        """
        return parse_answer(self._transport.get(f"{path_of(search_id)}/logs"), Page[Log]).items

    def log(self, search_id: JobRef, name: str, *, tail: int | None = None) -> str:
        """What a runner or a trial wrote; bytes that are no UTF-8 come as replacement characters.

        Args:
            search_id: The search.
            name: One of `logs`.
            tail: Only so many of its last lines.

        Raises:
            NotFoundError: There is no such search, or no such log.
            ServerFailedError: The storage of the logs is away.
        """
        response = self._transport.get(
            f"{path_of(search_id)}/logs/{segment(name)}", params={"tail": tail}, accept="text/plain"
        )
        return response.content.decode(errors="replace")
