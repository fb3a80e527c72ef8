"""Submissions that are written together: each has its own answer, and its own mistakes."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from fastapi import Response
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError

from search_core.spec import SearchSpec
from service.database import Database
from service.idempotency import REPLAYED, Sent
from service.jobs.submissions import Submission, Submissions
from service.searches.schemas import SearchAnswer
from store import keys
from store.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    InvalidKeyError,
)
from store.models import Event, Search
from store.sessions import driver_url, make_async_engine, transaction
from store.states import Role
from tests.conftest import KEY
from tests.service.conftest import SPEC

Outcome = Response | BaseException


class Counting(Database):
    """A database that counts its transactions."""

    num_transactions = 0

    async def run(self, operation: Callable[..., Any]) -> Any:
        self.num_transactions += 1
        return await super().run(operation)


def submission(
    name: str = "one", *, key: str = KEY, sent: Sent | None = None, **changes: Any
) -> Submission:
    spec = SearchSpec.model_validate({**SPEC, "name": name})
    # Changes that the spec itself would refuse: what else could go wrong in the database?
    return Submission(keys.digest(key), spec.model_copy(update=changes), SearchAnswer, sent)


def sent(key: str, digest: bytes = b"digest") -> Sent:
    return Sent("/v1/searches", key, digest)


def at_once(url: str, submissions: Sequence[Submission]) -> tuple[list[Outcome], int]:
    """What becomes of each, and how many transactions it took."""

    async def run() -> tuple[list[Outcome], int]:
        engine = make_async_engine(url)
        database = Counting(engine)
        writer = Submissions(database)
        waiting: list[Awaitable[Response]] = [writer.add(each) for each in submissions]
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        await engine.dispose()
        return list(outcomes), database.num_transactions

    return asyncio.run(run())


def names(engine: Engine) -> list[str]:
    with transaction(engine) as session:
        return list(session.scalars(select(Search.name).order_by(Search.id)))


def test_those_that_come_together_are_one_transaction(database_url: str, engine: Engine) -> None:
    wanted = [f"number {number}" for number in range(40)]
    outcomes, num_transactions = at_once(database_url, [submission(name) for name in wanted])
    assert num_transactions == 1
    assert names(engine) == wanted
    for name, outcome in zip(wanted, outcomes, strict=True):
        assert isinstance(outcome, Response)
        answer = SearchAnswer.model_validate_json(bytes(outcome.body))
        assert (outcome.status_code, answer.name) == (201, name)
        assert outcome.headers["location"] == f"/v1/searches/{answer.id}"
    with transaction(engine) as session:
        events = session.scalars(select(Event)).all()
        assert {(event.number, event.kind) for event in events} == {(1, "search.queued")}
        assert len(events) == len(wanted)
        assert set(session.scalars(select(Search.last_event))) == {1}


def test_no_transaction_is_long(database_url: str, engine: Engine) -> None:
    seeds = SearchSpec.model_validate({**SPEC, "trials": {"seeds": list(range(100))}}).trials
    outcomes, num_transactions = at_once(
        database_url, [submission(trials=seeds) for _ in range(25)]
    )
    assert num_transactions == 3
    assert all(isinstance(outcome, Response) for outcome in outcomes)
    assert len(names(engine)) == 25


def test_who_may_not_submit_is_alone_in_that(database_url: str, engine: Engine) -> None:
    with transaction(engine) as session:
        viewer = keys.create(session, "ana", Role.VIEWER).secret
        revoked = keys.create(session, "ana", Role.MEMBER)
        keys.revoke(session, revoked.key.id)
    outcomes, num_transactions = at_once(
        database_url,
        [
            submission("first"),
            submission(key=viewer),
            submission(key=revoked.secret),
            submission(key="dbk_unknown"),
            submission("last"),
        ],
    )
    assert num_transactions == 1
    assert [type(outcome) for outcome in outcomes] == [
        Response, ForbiddenError, InvalidKeyError, InvalidKeyError, Response,
    ]  # fmt: skip
    assert names(engine) == ["first", "last"]


def test_one_that_cannot_be_stored_takes_nobody_with_it(database_url: str, engine: Engine) -> None:
    outcomes, _ = at_once(
        database_url, [submission("first"), submission(priority=2**40), submission("last")]
    )
    assert isinstance(outcomes[1], DBAPIError)
    assert [type(outcomes[number]) for number in (0, 2)] == [Response, Response]
    assert names(engine) == ["first", "last"]


def test_the_same_name_at_once_is_one_search(database_url: str, engine: Engine) -> None:
    outcomes, _ = at_once(
        database_url,
        [
            submission("named", sent=sent("a")),
            submission("other", sent=sent("b")),
            *(submission("named", sent=sent("a")) for _ in range(3)),
            submission("named", sent=sent("a", b"other digest")),
        ],
    )
    named, other, *again, changed = outcomes
    assert isinstance(named, Response)
    assert isinstance(other, Response)
    for outcome in again:
        assert isinstance(outcome, Response)
        assert outcome.body == named.body
        assert outcome.headers["location"] == named.headers["location"]
        assert outcome.headers[REPLAYED] == "true"
    assert REPLAYED not in named.headers
    assert isinstance(changed, IdempotencyKeyReusedError)
    assert names(engine) == ["named", "other"]


def test_whoever_goes_away_stops_nobody(database_url: str, engine: Engine) -> None:
    async def leave() -> None:
        database = make_async_engine(database_url)
        writer = Submissions(Database(database))
        first, second = (
            asyncio.create_task(writer.add(submission(name))) for name in ("first", "second")
        )
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(60):
            assert (await second).status_code == 201
            with pytest.raises(asyncio.CancelledError):
                await first
        await database.dispose()

    asyncio.run(leave())
    assert names(engine) == ["first", "second"]


def url_at(server: socket.socket) -> str:
    """Of a database where something else listens."""
    return driver_url(f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/none")


def test_a_database_that_does_not_answer_is_waited_for_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcomes, num_transactions = at_once(url_at(silent), [submission()] * 70)
    assert all(isinstance(outcome, DatabaseUnavailableError) for outcome in outcomes)
    assert num_transactions == 1  # though one is of 64 at most


def test_who_is_tried_alone_does_not_wait_either() -> None:
    class Silent(Database):
        """A database that fails a transaction of many, and then does not answer."""

        num_transactions = 0

        async def run(self, operation: Callable[..., Any]) -> Any:
            self.num_transactions += 1
            if self.num_transactions == 1:
                raise ValueError("one of them cannot be stored")
            await asyncio.sleep(1.1)
            raise DatabaseUnavailableError("silence")

    async def run() -> int:
        engine = make_async_engine(driver_url("postgresql://nobody@127.0.0.1/none"))
        database = Silent(engine)
        writer = Submissions(database)
        waiting = [writer.add(submission()) for _ in range(5)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, DatabaseUnavailableError) for outcome in outcomes)
        await engine.dispose()
        return database.num_transactions

    assert asyncio.run(run()) == 2


def test_where_nobody_listens_each_transaction_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = url_at(closed)
    outcomes, num_transactions = at_once(url, [submission()] * 70)
    assert all(isinstance(outcome, DatabaseUnavailableError) for outcome in outcomes)
    assert num_transactions == 2
