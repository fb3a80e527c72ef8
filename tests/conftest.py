"""What every test may ask for: a real PostgreSQL, and a fresh database in it."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from migrations.upgrade import upgrade
from store import embedded, keys, owners
from store.notifications import plain_url
from store.sessions import driver_url, make_engine, transaction
from store.states import Role
from tests.s3 import s3_server

__all__ = ["s3_server"]

_numbers = itertools.count()

# Ray starts its workers at niceness 15. Then a trial beside another test that computes gets a
# thirtieth of a core, and does not start within minutes.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (as Ray spells it)

KEY = "dbk_the-key-that-every-test-database-has-for-its-admin"
BEARER = {"Authorization": f"Bearer {KEY}"}


_LONGEST_FIRST = ("acceptance", "ray")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of which any test is marked as a long one come first, the others as they were."""
    ranks: dict[Path, int] = {}
    for item in items:
        rank = min(
            (
                place
                for place, marker in enumerate(_LONGEST_FIRST)
                if item.get_closest_marker(marker) is not None
            ),
            default=len(_LONGEST_FIRST),
        )
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this test run, with a migrated template database."""
    with tempfile.TemporaryDirectory(prefix="dartboard-test-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        # As root the server runs as a user of its own, which has to get through to its data.
        home.chmod(0o755)
        try:
            url = embedded.start(home)
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                # Nobody needs these data after a power cut, and a disk that is busy keeps tests
                # waiting for longer than a connection waits.
                _execute(url, f"ALTER SYSTEM SET {setting} = off")
            _execute(url, "SELECT pg_reload_conf()")
            _execute(url, "CREATE DATABASE template_dartboard")
            upgrade(_database(url, "template_dartboard"))
            _put_key(_database(url, "template_dartboard"))
            yield url
        finally:
            embedded.stop(home)


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """SQLAlchemy's URL of a migrated database that only this test uses."""
    name = f"test_{next(_numbers)}"
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE template_dartboard")
    yield _database(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on this test's database."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


def _put_key(url: str) -> None:
    engine = make_engine(url)
    with transaction(engine) as session:
        keys.create(session, owners.LOCAL, Role.ADMIN, secret=KEY)
    engine.dispose()


def _database(url: str, name: str) -> str:
    return driver_url(url).replace("/postgres?", f"/{name}?")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute(statement)
