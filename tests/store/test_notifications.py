"""What wakes whom."""

from collections.abc import Callable
from uuid import UUID

import psycopg
from sqlalchemy import Engine

from store import searches, verbs
from store.events import EVENTS_CHANNEL, QUEUE_CHANNEL
from store.notifications import Notification, listening, plain_url
from store.sessions import transaction
from tests.store.conftest import spec

Submit = Callable[..., UUID]


def test_a_submission_wakes_the_dispatchers_once_it_is_committed(
    engine: Engine, database_url: str
) -> None:
    with listening(database_url, [QUEUE_CHANNEL]) as listener:
        with transaction(engine) as session:
            search_id = searches.submit(session, spec()).id
            assert listener.wait(0.1) == []
        assert listener.wait(10.0) == [Notification(QUEUE_CHANNEL, str(search_id))]


def test_a_cancel_request_wakes_the_runner(
    engine: Engine, database_url: str, submit: Submit, claim: Callable[..., object]
) -> None:
    search_id = submit()
    claim()
    with listening(database_url, [QUEUE_CHANNEL]) as listener:
        with transaction(engine) as session:
            verbs.request_cancel(session, search_id)
        assert listener.wait(10.0) == [Notification(QUEUE_CHANNEL, str(search_id))]


def test_every_event_wakes_its_readers(engine: Engine, database_url: str, submit: Submit) -> None:
    with listening(database_url, [EVENTS_CHANNEL]) as listener:
        search_id = submit()
        assert listener.wait(10.0) == [Notification(EVENTS_CHANNEL, str(search_id))]


def test_a_listener_is_told_what_every_connection_is_told(database_url: str) -> None:
    with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
        told = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
    assert told == ("10s",)


def test_a_plus_of_a_url_stays_one() -> None:
    url = plain_url("postgresql+psycopg://user:a+b@host/name?application_name=a%2Bb+c")
    assert url == "postgresql://user:a+b@host/name?application_name=a%2Bb%20c"
