"""Transactions of requests, and databases that do not answer."""

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from search_core.spec import SearchSpec
from service.database import Database
from store import searches
from store.errors import DatabaseUnavailableError
from store.models import Search
from store.sessions import make_async_engine
from tests.service.conftest import SPEC


async def _run(url: str, *operations: object) -> list[object]:
    engine = make_async_engine(url, pool_size=1)
    try:
        database = Database(engine)
        return [await database.run(operation) for operation in operations]  # type: ignore[arg-type]
    finally:
        await engine.dispose()


def _count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Search)) or 0


def test_an_operation_is_committed_when_it_returns(database_url: str) -> None:
    spec = SearchSpec.model_validate(SPEC)
    results = asyncio.run(
        _run(database_url, lambda session: searches.submit(session, spec).name, _count)
    )
    assert results == ["first", 1]


def test_an_operation_that_raises_leaves_nothing(database_url: str) -> None:
    spec = SearchSpec.model_validate(SPEC)

    def refuse(session: Session) -> None:
        searches.submit(session, spec)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(_run(database_url, refuse))
    assert asyncio.run(_run(database_url, _count)) == [0]


def test_an_operation_that_is_ended_for_a_deadlock_is_run_again(database_url: str) -> None:
    runs: list[int] = []

    def take(first: int, second: int) -> Callable[[Session], int]:
        def operation(session: Session) -> int:
            runs.append(first)
            session.execute(select(func.pg_advisory_xact_lock(first)))
            # Long enough for the other to have its own first one.
            session.execute(select(func.pg_sleep(0.3)))
            session.execute(select(func.pg_advisory_xact_lock(second)))
            return first

        return operation

    async def both() -> tuple[int, int]:
        engine = make_async_engine(database_url, pool_size=2)
        database = Database(engine)
        try:
            first, second = await asyncio.gather(database.run(take(1, 2)), database.run(take(2, 1)))
            return first, second
        finally:
            await engine.dispose()

    assert asyncio.run(both()) == (1, 2)
    assert len(runs) == 3


def test_what_is_not_the_databases_absence_is_not_called_so(database_url: str) -> None:
    def violate(session: Session) -> None:
        session.add(
            Search(name="", spec={}, space_kind="darts", priority=0, labels={}, trial_cpus=0)
        )
        session.flush()

    with pytest.raises(IntegrityError):
        asyncio.run(_run(database_url, violate))


def test_a_silent_host_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql+psycopg://u:p@127.0.0.1:{port}/x?connect_timeout=1"
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="does not answer"):
            asyncio.run(_run(url, _count))
        assert time.monotonic() - started < 10
