"""Databases to measure on: a real PostgreSQL, filled with so many searches that ended or wait."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import Engine, text

from migrations.upgrade import upgrade
from search_core.spec import SearchSpec
from store import embedded, keys, owners, queue, searches
from store.notifications import plain_url
from store.sessions import driver_url, make_engine, transaction
from store.states import Role

SPEC: Final = {
    "name": "measured",
    "space": {"kind": "darts", "channels": 2, "cells": 3, "nodes": 1},
    "training": {"epochs": 3, "batch_size": 32},
    "trials": {"seeds": [0, 1]},
}

_numbers = itertools.count()

_COPY: Final = """
WITH one AS (SELECT * FROM searches WHERE id = :id),
made AS (
    INSERT INTO searches (kind, owner, name, status, reason, spec, space_kind, priority, labels,
                          trial_cpus, trial_gpus, trial_custom, num_processes, ended_at, queued_at)
    SELECT kind, owner, name, :status, CASE WHEN :ended THEN 'completed' END, spec, space_kind,
           priority, labels, trial_cpus, trial_gpus, trial_custom, num_processes,
           CASE WHEN :ended THEN now() END, now() - make_interval(secs => number)
    FROM one, generate_series(1, :count) AS number
    RETURNING id
)
INSERT INTO trials (search_id, number, stack, seed, parameters, status, epochs)
SELECT made.id, trials.number, trials.stack, trials.seed, trials.parameters,
       CASE WHEN :ended THEN 'failed' ELSE 'queued' END, trials.epochs
FROM made, trials WHERE trials.search_id = :id
"""


class Database:
    """A database of this run.

    Attributes:
        url: SQLAlchemy's URL of it.
        key: The secret of an admin.
        engine: An engine on it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = keys.draw()
        self.engine: Engine = make_engine(url)
        with transaction(self.engine) as session:
            keys.create(session, owners.LOCAL, Role.ADMIN, secret=self.key)

    def fill(self, *, ended: int, queued: int) -> None:
        """Adds searches of two trials each."""
        with transaction(self.engine) as session:
            one = searches.submit(session, SearchSpec.model_validate(SPEC)).id
            for status, count in (("succeeded", ended), ("queued", queued)):
                values = {"id": one, "status": status, "ended": status != "queued", "count": count}
                session.execute(text(_COPY), values)
            # As an API process does every ten minutes.
            queue.fold_counts(session)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """A PostgreSQL server of this run; gives its URL."""
    # As root the server runs as a user of its own, which has to get through to its data.
    home.chmod(0o755)
    try:
        yield embedded.start(home)
    finally:
        embedded.stop(home)


def make_database(server: str, *, ended: int = 0, queued: int = 0) -> Database:
    """A new, migrated database with so many searches."""
    name = f"queue_{next(_numbers)}"
    with psycopg.connect(plain_url(server), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = driver_url(server).replace("/postgres?", f"/{name}?")
    upgrade(url)
    database = Database(url)
    database.fill(ended=ended, queued=queued)
    return database
