"""What every connection is told, and what becomes of one whose process was stopped."""

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError

from store.sessions import driver_url, is_away, make_engine, transaction


def test_a_transaction_that_sleeps_is_ended_by_the_server(engine: Engine) -> None:
    with engine.connect() as connection:
        told = connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert told == "10s"


def test_its_locks_are_free_then(engine: Engine, database_url: str) -> None:
    sleeper = make_engine(database_url)
    with sleeper.connect() as asleep:
        asleep.execute(text("SET idle_in_transaction_session_timeout = '200ms'"))
        asleep.execute(select(func.pg_advisory_xact_lock(7)))
        # Waits for the sleeper to be ended, as a claim would.
        with transaction(engine) as session:
            session.execute(select(func.pg_advisory_xact_lock(7)))
        with pytest.raises(DBAPIError) as ended:
            asleep.execute(text("SELECT 1"))
        assert is_away(ended.value)
    sleeper.dispose()


def test_options_of_a_url_are_kept() -> None:
    url = driver_url("postgresql://user@host/name?options=-c%20statement_timeout%3D5s")
    assert "statement_timeout" in url
    assert "idle_in_transaction" not in url
