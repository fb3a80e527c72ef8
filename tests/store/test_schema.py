"""The schema, its version, and the database that no settings name."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from migrations.upgrade import configure, upgrade
from store import embedded
from store.errors import DatabaseUnavailableError
from store.models import SCHEMA_REVISION
from store.sessions import driver_url, schema_revision, transaction


def test_the_models_name_the_newest_migration(database_url: str) -> None:
    script = ScriptDirectory.from_config(configure(database_url))
    assert script.get_current_head() == SCHEMA_REVISION


def test_a_database_says_its_revision(engine: Engine) -> None:
    with transaction(engine) as session:
        assert schema_revision(session) == SCHEMA_REVISION
        session.execute(text("DROP TABLE alembic_version"))
        assert schema_revision(session) is None
        session.rollback()


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    upgrade(database_url)


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://host/db", "nonsense"])
def test_another_database_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"PostgreSQL|postgresql://"):
        driver_url(url)


def test_the_drivers_name_is_added_and_the_password_kept() -> None:
    url = driver_url("postgresql://me:secret@host:5433/db")
    assert url.startswith("postgresql+psycopg://me:secret@host:5433/db?")


def test_time_limits_are_added_where_the_url_has_none() -> None:
    url = driver_url("postgresql://host/db?connect_timeout=60")
    assert "connect_timeout=60" in url
    assert "tcp_user_timeout=10000" in url


def test_stopping_what_does_not_run(tmp_path: Path) -> None:
    assert embedded.stop(tmp_path) is False


def test_an_embedded_server_that_cannot_start_says_where_its_log_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where a folder should be")
    with pytest.raises(DatabaseUnavailableError, match="does not start"):
        embedded.start(home)
