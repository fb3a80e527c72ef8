"""Searches small enough for tests, and one Ray cluster for all that need one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from search_core.spec import SearchSpec
from store import events, searches
from store.models import Event, Search, Trial
from store.sessions import transaction
from workers.settings import WorkerSettings

_PATIENCE_SECONDS = 180.0

TINY: dict[str, Any] = {
    "space": {
        "kind": "darts",
        "channels": 2,
        "cells": 3,
        "nodes": 1,
        "primitives": ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"],
    },
    "training": {"epochs": 2, "batch_size": 256},
}


def tiny(**fields: Any) -> SearchSpec:
    """A real search that takes a second, with some fields of one's own."""
    training = TINY["training"] | fields.pop("training", {})
    return SearchSpec.model_validate({**TINY, **fields, "training": training})


@dataclass(frozen=True)
class RayCluster:
    """A cluster of this test run: its head's address and the home that has its token."""

    address: str
    home: Path


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A local Ray of two CPUs, started once."""
    with tempfile.TemporaryDirectory(prefix="dartboard-ray-") as name:
        home = Path(name)
        address_file = home / "ray.json"
        with (home / "cluster.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.cluster", "--address-file", str(address_file),
                 "--cpus", "2"],
                env={**os.environ, "DARTBOARD_HOME": str(home)},
                stdout=log,
                stderr=log,
            )  # fmt: skip
        try:
            wait_until(address_file.exists)
            yield RayCluster(json.loads(address_file.read_text())["address"], home)
        finally:
            process.terminate()
            process.wait(120)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> WorkerSettings:
    """Settings of a deployment of this test, without Ray."""
    return WorkerSettings(
        database_url=database_url, home=tmp_path, executor="inline", lease_seconds=5
    )


@pytest.fixture
def submit(engine: Engine) -> Callable[..., UUID]:
    """Submits a tiny search, with some fields of one's own."""

    def submit(**fields: Any) -> UUID:
        with transaction(engine) as session:
            return searches.submit(session, tiny(**fields)).id

    return submit


@dataclass(frozen=True)
class Record:
    """All that the store knows of one search."""

    search: Search
    trials: list[Trial]
    events: list[Event]

    @property
    def kinds(self) -> list[str]:
        """The events' kinds, in order."""
        return [event.kind for event in self.events]


@pytest.fixture
def record(engine: Engine) -> Callable[[UUID], Record]:
    """Reads all that the store knows of a search."""

    def record(search_id: UUID) -> Record:
        with transaction(engine) as session:
            return Record(
                searches.get(session, search_id),
                list(searches.trials(session, search_id)),
                list(events.page(session, search_id)),
            )

    return record


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for something that other processes bring about.

    However busy the machine is: the deadline is there to end a test that would wait for ever.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {_PATIENCE_SECONDS:.0f} s"
        time.sleep(0.05)
