"""Searches small enough for tests, and one Ray cluster for all that need one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import torch
from sqlalchemy import Engine

from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from store import events, searches
from store.models import Event, Search, Trial
from store.sessions import transaction
from workers.settings import WorkerSettings

_PATIENCE_SECONDS = 300.0

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


@pytest.fixture(autouse=True)
def _as_many_threads_as_a_trial() -> Iterator[None]:
    """Runs in the test's own process are compared with trials of one core, to the bit."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def tiny(**fields: Any) -> SearchSpec:
    """A real search that takes a second, with some fields of one's own."""
    training = TINY["training"] | fields.pop("training", {})
    return SearchSpec.model_validate({**TINY, **fields, "training": training})


TINY_TRAINING: dict[str, Any] = {
    "architecture": {
        "normal": [["sep_conv_3x3", 0], ["skip_connect", 1]],
        "normal_concat": [2],
        "reduce": [["max_pool_3x3", 0], ["max_pool_3x3", 1]],
        "reduce_concat": [2],
    },
    "network": {"channels": 2, "cells": 3, "auxiliary_weight": 0.0},
    "training": {
        "epochs": 2,
        "batch_size": 256,
        "schedule": {"kind": "cosine"},
    },
}


def tiny_training(**fields: Any) -> RetrainingSpec:
    """A real training that takes a second, with some fields of one's own."""
    training = TINY_TRAINING["training"] | fields.pop("training", {})
    return RetrainingSpec.model_validate(
        {**TINY_TRAINING, **fields, "training": training}, strict=False
    )


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
    return WorkerSettings(database_url=database_url, home=tmp_path, executor="inline")


@pytest.fixture
def submit(engine: Engine) -> Callable[..., UUID]:
    """Submits a tiny search, with some fields of one's own."""

    def submit(**fields: Any) -> UUID:
        with transaction(engine) as session:
            return searches.submit(session, tiny(**fields)).id

    return submit


@pytest.fixture
def submit_training(engine: Engine) -> Callable[..., UUID]:
    """Submits a tiny training, with some fields of one's own."""

    def submit(**fields: Any) -> UUID:
        with transaction(engine) as session:
            return searches.submit(session, tiny_training(**fields)).id

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


def start_dispatcher(settings: WorkerSettings, **variables: str) -> subprocess.Popen[bytes]:
    """A dispatcher process on the test's database."""
    assert settings.database_url is not None
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DARTBOARD_DATABASE_URL": settings.database_url,
        "DARTBOARD_HOME": str(settings.home),
        "DARTBOARD_EXECUTOR": "inline",
        # Only runners that run something are to be found by the tests.
        "DARTBOARD_WARM_RUNNERS": "0",
        **variables,
    }
    with (settings.home / "dispatcher.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.dispatcher"], env=environment, stdout=log, stderr=log
        )


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(settings: WorkerSettings) -> Iterator[Start]:
    """Starts dispatchers, and leaves neither them nor their runners behind."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**variables: str) -> subprocess.Popen[bytes]:
        processes.append(start_dispatcher(settings, **variables))
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # it may have been put to sleep
    for process in processes:
        process.wait(120)
    for runner in runners_on(settings):
        runner.kill()


def runners_on(settings: WorkerSettings) -> list[psutil.Process]:
    """The living runners that use the test's database, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if "workers.runner" not in _command_of(process):
                continue
            url = process.environ().get("DARTBOARD_DATABASE_URL")
        except psutil.Error:
            continue
        if url == settings.database_url:
            found.append(process)
    return found


def _command_of(process: psutil.Process) -> list[str]:
    """A process's command line.

    One that was started just now has none for a moment: whoever started it goes on when its files
    are closed, which the kernel does before it writes down what it runs. The kernel's own have none
    ever, and no memory.
    """
    command: list[str] = process.cmdline()
    deadline = time.monotonic() + 1
    while not command and process.memory_info().rss and time.monotonic() < deadline:
        time.sleep(0.001)
        command = process.cmdline()
    return command


def hold(settings: WorkerSettings, search_id: UUID) -> psutil.Process:
    """A search's runner, stopped in its tracks, so that it cannot end before it is killed.

    It is known by the log that it writes to: beside it, the runner of a search that has ended may
    still live, to copy the end of its own log.
    """
    (runner,) = (each for each in runners_on(settings) if str(search_id) in _log_of(each))
    runner.suspend()
    return runner


def _log_of(process: psutil.Process) -> str:
    """Where a process's output goes; nowhere when it has ended."""
    try:
        return str(Path(f"/proc/{process.pid}/fd/1").readlink())
    except OSError:
        return ""


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for something that other processes bring about.

    However busy the machine is: the deadline is there to end a test that would wait for ever.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {_PATIENCE_SECONDS:.0f} s"
        time.sleep(0.05)
