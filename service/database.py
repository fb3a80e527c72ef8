"""The one way from an endpoint to the store: an operation inside a transaction of its own."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import (
    DBAPIError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from store.errors import DatabaseUnavailableError
from store.sessions import is_away

Result = TypeVar("Result")

_TRIES = 3
_DEADLOCK = "40P01"


class Database:
    """Runs store operations, each in one committed transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Uses the engine's pool; closing the engine stays its owner's task."""
        self._engine = engine

    async def run(self, operation: Callable[[Session], Result]) -> Result:
        """Runs an operation and commits before it returns.

        An endpoint answers after this, so that whoever reads a 201 finds the row. (The teardown of
        a dependency would commit after the answer is sent.) What the operation returns must not
        be a row with anything left to load: the connection is back in its pool by then.

        Args:
            operation: Takes the session; commits nothing itself. It is run again where PostgreSQL
                ended it to resolve a deadlock.

        Returns:
            What the operation returns.

        Raises:
            DatabaseUnavailableError: PostgreSQL does not answer or has no tables; nothing is
                stored.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                async with (
                    AsyncSession(self._engine, expire_on_commit=False) as session,
                    session.begin(),
                ):
                    return await session.run_sync(operation)
            except SQLAlchemyError as error:
                if tries_left and _is_deadlock(error):
                    continue  # PostgreSQL ended this one so that the other could go on
                reason = _unavailable(error)
                if reason is None:
                    raise
                raise DatabaseUnavailableError(reason) from error
        raise AssertionError("the last try either returns or raises")


def _is_deadlock(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _DEADLOCK


def _unavailable(error: SQLAlchemyError) -> str | None:
    if isinstance(error, PoolTimeoutError):
        return (
            "all database connections are busy: try again, or give the API more of them "
            "with DARTBOARD_DATABASE_CONNECTIONS"
        )
    if isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", None) == "42P01":
        return "the database has no tables yet: run `python -m migrations`"
    if isinstance(error, DBAPIError) and is_away(error):
        return "PostgreSQL does not answer: see that it runs, and try again"
    return None
