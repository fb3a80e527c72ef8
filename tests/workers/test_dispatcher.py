"""The dispatcher with real runner processes, whose trials run inside them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from sqlalchemy import Engine

from store import lifecycle, queue
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record, wait_until
from workers.settings import WorkerSettings

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]


def start(settings: WorkerSettings, **variables: str) -> subprocess.Popen[bytes]:
    """A dispatcher process on the test's database."""
    assert settings.database_url is not None
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DARTBOARD_DATABASE_URL": settings.database_url,
        "DARTBOARD_HOME": str(settings.home),
        "DARTBOARD_EXECUTOR": "inline",
        "DARTBOARD_LEASE_SECONDS": "5",
        **variables,
    }
    with (settings.home / "dispatcher.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.dispatcher"], env=environment, stdout=log, stderr=log
        )


@pytest.fixture
def dispatcher(settings: WorkerSettings) -> Iterator[subprocess.Popen[bytes]]:
    process = start(settings)
    yield process
    stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(120)


def runner_of(search_id: UUID) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "workers.runner" in command and str(search_id) in command:
            return process
    return None


def test_a_killed_runner_is_noticed_and_the_search_ends_the_same(
    dispatcher: subprocess.Popen[bytes], submit: Submit, record: Recorder
) -> None:
    undisturbed = submit(training={"epochs": 6})
    wait_until(lambda: record(undisturbed).search.status == "succeeded")
    search_id = submit(training={"epochs": 6})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    runner = runner_of(search_id)
    assert runner is not None
    runner.kill()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    after = record(search_id)
    assert after.search.attempt == 2
    requeued = next(event for event in after.events if event.kind == "search.requeued")
    assert requeued.data["reason"] == Reason.RUNNER_CRASHED
    assert "SIGKILL" in requeued.data["message"]
    resumed = [event for event in after.events if event.kind == "trial.started"][-1]
    assert resumed.data["from_epoch"] >= 1
    epochs = [event.data["epoch"] for event in after.events if event.kind == "trial.epoch"]
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert after.search.recommended_hash == record(undisturbed).search.recommended_hash


def test_a_dispatcher_and_runner_killed_together_lose_nothing(
    settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    first = start(settings)
    search_id = submit(training={"epochs": 6})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    runner = runner_of(search_id)
    assert runner is not None
    first.kill()
    runner.kill()
    first.wait()
    second = start(settings)
    try:
        # Nobody saw the runner die: its lease has to run out.
        wait_until(lambda: record(search_id).search.status == "succeeded")
    finally:
        stop(second)
    requeued = next(event for event in record(search_id).events if event.kind == "search.requeued")
    assert requeued.data["reason"] == Reason.LEASE_EXPIRED


def test_a_runner_outlives_its_dispatcher(
    settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    first = start(settings)
    search_id = submit(training={"epochs": 4})
    wait_until(lambda: record(search_id).search.status == "running")
    wait_until(lambda: runner_of(search_id) is not None)
    first.kill()
    first.wait()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    assert record(search_id).search.attempt == 1


def test_a_running_search_is_cancelled_within_seconds(
    engine: Engine,
    dispatcher: subprocess.Popen[bytes],
    submit: Submit,
    record: Recorder,
) -> None:
    search_id = submit(training={"epochs": 10_000})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    with transaction(engine) as session:
        lifecycle.request_cancel(session, search_id)
    wait_until(lambda: record(search_id).search.status == "cancelled")
    wait_until(lambda: runner_of(search_id) is None)
    assert [trial.status for trial in record(search_id).trials] == ["cancelled"]


def test_a_stopped_dispatcher_puts_its_searches_back(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    process = start(settings)
    search_id = submit(training={"epochs": 10_000})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    after = record(search_id)
    assert (after.search.status, after.search.reason) == ("queued", Reason.SHUTDOWN)
    assert after.search.failures == 0
    assert runner_of(search_id) is None
    with transaction(engine) as session:
        assert queue.dispatchers_seen(session) == []


def test_a_dispatcher_without_ray_says_what_to_set(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    process = start(settings, DARTBOARD_EXECUTOR="ray")
    assert process.wait(120) == 2
    assert "DARTBOARD_RAY_ADDRESS" in (settings.home / "dispatcher.log").read_text()


def test_a_database_that_was_never_migrated_is_named(
    settings: WorkerSettings, postgres_url: str
) -> None:
    process = start(settings, DARTBOARD_DATABASE_URL=postgres_url)
    assert process.wait(120) == 1
    assert "python -m migrations" in (settings.home / "dispatcher.log").read_text()
