"""Waiting for PostgreSQL's notifications: synchronous for the workers, async for the service."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import psycopg
from sqlalchemy import make_url


@dataclass(frozen=True)
class Notification:
    """A wake-up: the channel and its payload, which is a search's id."""

    channel: str
    payload: str


class Listener:
    """Listens on channels with a connection of its own."""

    def __init__(self, connection: psycopg.Connection) -> None:
        """Takes over a connection that already listens."""
        self._connection = connection

    def wait(self, timeout: float) -> list[Notification]:
        """Blocks until something is notified, at most `timeout` seconds.

        Returns:
            What came, in order; empty after the time-out.

        Raises:
            psycopg.OperationalError: The connection is gone.
        """
        return [
            Notification(notify.channel, notify.payload)
            for notify in self._connection.notifies(timeout=timeout, stop_after=1)
        ]


@contextmanager
def listening(url: str, channels: Collection[str]) -> Iterator[Listener]:
    """A listener on the channels, for as long as the block runs.

    Args:
        url: The database, as `store.sessions.database_url` gives it.
        channels: Names from `store.events`.
    """
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        for channel in channels:
            connection.execute(_listen(channel))
        yield Listener(connection)


@asynccontextmanager
async def listening_async(
    url: str, channels: Collection[str]
) -> AsyncIterator[AsyncGenerator[Notification]]:
    """What is notified on the channels, as it comes, for as long as the block runs.

    Args:
        url: The database, as `store.sessions.database_url` gives it.
        channels: Names from `store.events`.

    Raises:
        psycopg.OperationalError: There is no connection, or it is gone.
    """
    connection = await psycopg.AsyncConnection.connect(plain_url(url), autocommit=True)
    async with connection:
        for channel in channels:
            await connection.execute(_listen(channel))
        yield (
            Notification(notify.channel, notify.payload) async for notify in connection.notifies()
        )


def _listen(channel: str) -> psycopg.sql.Composed:
    return psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel))


def plain_url(url: str) -> str:
    """A URL without SQLAlchemy's driver name, as psycopg itself reads it."""
    rendered = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    # libpq takes a plus in the query for a plus; SQLAlchemy writes a space so, and a plus as %2B.
    address, mark, query = rendered.partition("?")
    return address + mark + query.replace("+", "%20")
