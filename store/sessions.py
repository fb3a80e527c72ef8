"""Engines and transactions, synchronous for the workers and asynchronous for the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from store import embedded
from store.errors import DatabaseUnavailableError
from store.settings import StoreSettings

_SLEPT_IN_TRANSACTION: Final = "25P03"

_CONNECTING: Final = {
    # A host that went silent is given up after seconds, not after the kernel's quarter of an hour.
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    # A process that was stopped within a transaction keeps its locks: that of the claims too, and
    # nobody could claim until it goes on. Transactions are short; this ends those that are not.
    "options": "-c idle_in_transaction_session_timeout=10s",
}


def database_url(settings: StoreSettings) -> str:
    """The URL of the deployment's database; starts the embedded one when none is set.

    Raises:
        DatabaseUnavailableError: The embedded PostgreSQL cannot be started, or the URL is none.
    """
    return driver_url(settings.database_url or embedded.start(settings.home))


def driver_url(url: str) -> str:
    """A PostgreSQL URL with psycopg 3 as its driver, and time limits where it names none.

    Raises:
        DatabaseUnavailableError: It is not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except Exception as error:
        raise DatabaseUnavailableError(
            "DARTBOARD_DATABASE_URL is not a URL: write it like "
            "postgresql://user:password@host:5432/database"
        ) from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseUnavailableError(
            f"DARTBOARD_DATABASE_URL names {parsed.get_backend_name()!r}: "
            "Dartboard keeps its queue in PostgreSQL only"
        )
    patient = {name: value for name, value in _CONNECTING.items() if name not in parsed.query}
    return (
        parsed.set(drivername="postgresql+psycopg")
        .update_query_dict(patient)
        .render_as_string(hide_password=False)
    )


def make_engine(url: str) -> Engine:
    """A synchronous engine that checks a connection before it hands it out."""
    return create_engine(url, pool_pre_ping=True, pool_size=4, hide_parameters=True)


def make_async_engine(url: str, *, pool_size: int = 8) -> AsyncEngine:
    """As `make_engine`, asynchronous, with so many connections at most."""
    return create_async_engine(
        url, pool_pre_ping=True, pool_size=pool_size, max_overflow=0, hide_parameters=True
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One session with one transaction: committed at the end, rolled back on an error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def is_away(error: DBAPIError) -> bool:
    """Whether a statement failed because the database, or this connection to it, was gone.

    Also one that the server ended because this process was stopped within a transaction. The same
    statement may succeed on another connection.
    """
    return (
        error.connection_invalidated
        or isinstance(error, OperationalError | InterfaceError)
        or getattr(error.orig, "sqlstate", None) == _SLEPT_IN_TRANSACTION
    )


def schema_revision(session: Session) -> str | None:
    """The migration that the database is at; None when it was never migrated."""
    if session.scalar(select(func.to_regclass("alembic_version"))) is None:
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
