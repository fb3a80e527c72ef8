"""A create that is repeated meanwhile waits, and then has the answer or does the work itself."""

import threading
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import idempotency, owners, searches
from store.errors import IdempotencyKeyReusedError
from store.idempotency import Kept, Named
from store.models import IdempotencyKey, Search
from store.notifications import plain_url
from store.sessions import transaction
from tests.store.conftest import spec, wait_until

NAMED = Named(owners.LOCAL, "/v1/searches", "a name", b"digest")


def create(session: Session) -> Kept | None:
    """What a create does: the answer of the first, or the work."""
    kept = idempotency.begin(session, NAMED, b"nonce")
    if kept is None:
        made = searches.submit(session, spec())
        idempotency.keep(session, NAMED, location=f"/{made.id}", answer=f'"{made.id}"')
    return kept


def num_searches(engine: Engine) -> int:
    with transaction(engine) as session:
        return session.scalars(select(func.count()).select_from(Search)).one()


def waiting_pids(url: str) -> list[int]:
    """Backends of this database that wait for a lock."""
    with psycopg.connect(plain_url(url)) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        )
        return [row[0] for row in rows]


class Repeating(threading.Thread):
    """Sends the create of this module again, from a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self.kept: Kept | None = None

    def run(self) -> None:
        with transaction(self._engine) as session:
            self.kept = create(session)


def test_the_second_has_the_answer_of_the_first(engine: Engine) -> None:
    with transaction(engine) as session:
        assert create(session) is None
    with transaction(engine) as session:
        kept = create(session)
    assert kept is not None
    assert kept.location == f"/{kept.answer[1:-1]}"
    assert kept.nonce == b"nonce"
    assert num_searches(engine) == 1


@pytest.mark.parametrize(
    "other",
    [
        Named("ana", "/v1/searches", "a name", b"digest"),
        Named(owners.LOCAL, "/v1/trainings", "a name", b"digest"),
        Named(owners.LOCAL, "/v1/searches", "another", b"digest"),
    ],
)
def test_names_of_others_and_elsewhere_are_others(engine: Engine, other: Named) -> None:
    with transaction(engine) as session:
        owners.ensure(session, "ana")
        create(session)
    with transaction(engine) as session:
        assert idempotency.begin(session, other, b"") is None


def test_a_name_for_another_request_is_refused(engine: Engine) -> None:
    with transaction(engine) as session:
        create(session)
    other = Named(NAMED.owner, NAMED.path, NAMED.key, b"another")
    with transaction(engine) as session:
        with pytest.raises(IdempotencyKeyReusedError, match="send a new key"):
            idempotency.begin(session, other, b"")
        with pytest.raises(IdempotencyKeyReusedError):
            idempotency.find(session, other)


def test_one_that_comes_meanwhile_waits_for_the_answer(engine: Engine, database_url: str) -> None:
    second = Repeating(engine)
    with transaction(engine) as session:
        assert create(session) is None
        second.start()
        wait_until(lambda: len(waiting_pids(database_url)) == 1)
        assert second.is_alive()
    second.join()
    assert second.kept is not None
    assert num_searches(engine) == 1


def test_one_that_comes_meanwhile_does_the_work_if_the_first_fails(
    engine: Engine, database_url: str
) -> None:
    second = Repeating(engine)
    with Session(engine) as session:
        assert create(session) is None
        second.start()
        wait_until(lambda: len(waiting_pids(database_url)) == 1)
        session.rollback()
    second.join()
    assert second.kept is None
    assert num_searches(engine) == 1


def test_one_that_comes_meanwhile_does_the_work_if_the_first_is_cut_off(
    engine: Engine, database_url: str
) -> None:
    second = Repeating(engine)
    with Session(engine) as session:
        assert create(session) is None
        pid = session.scalar(select(func.pg_backend_pid()))
        second.start()
        wait_until(lambda: len(waiting_pids(database_url)) == 1)
        with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(OperationalError):
            session.execute(select(1))
    second.join()
    assert second.kept is None
    assert num_searches(engine) == 1


def test_answers_are_kept_for_a_day(engine: Engine, age: Callable[[timedelta], None]) -> None:
    with transaction(engine) as session:
        create(session)
    age(timedelta(hours=23, minutes=59))
    with transaction(engine) as session:
        assert idempotency.forget(session) == 0
        assert create(session) is not None
    age(timedelta(minutes=2))
    with transaction(engine) as session:
        # Not removed yet: it is still the same request.
        assert create(session) is not None
        assert idempotency.forget(session) == 1
        assert create(session) is None


@pytest.fixture
def age(engine: Engine) -> Callable[[timedelta], None]:
    """Makes every kept answer older."""

    def age(by: timedelta) -> None:
        with transaction(engine) as session:
            session.execute(
                update(IdempotencyKey).values(created_at=IdempotencyKey.created_at - by)
            )

    return age
