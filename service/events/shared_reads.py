"""Streams that one bell woke read what is new once, for all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class SharedReads(Generic[Result]):
    """Runs reads; who asks for the same one before it has begun gets its result."""

    def __init__(self) -> None:
        """Reads nothing yet."""
        self._to_begin: dict[Any, asyncio.Task[Result]] = {}

    async def read(self, what: Any, read: Callable[[], Awaitable[Result]]) -> Result:
        """What is read now, by this call or by another one for the same.

        A read that has begun is nobody else's: it may have looked before what its reader was woken
        for was committed.

        Args:
            what: Names what is read, for whom.
            read: Reads it.

        Raises:
            Exception: As `read` does, for everyone who waits for it.
        """
        task = self._to_begin.get(what)
        if task is None:
            task = asyncio.create_task(self._read(what, read))
            self._to_begin[what] = task
            # Looked at even if everyone who waited has gone.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # A listener that goes away takes the read from nobody.
        return await asyncio.shield(task)

    async def _read(self, what: Any, read: Callable[[], Awaitable[Result]]) -> Result:
        # All that the bell woke have asked once this goes on.
        await asyncio.sleep(0)
        del self._to_begin[what]
        return await read()
