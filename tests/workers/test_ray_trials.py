"""Searches on a real Ray cluster."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from sqlalchemy import Engine

from store import verbs
from store.artifacts import logs_of
from store.logs import read, trial_log
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import RayCluster, Record, Start, hold, wait_until
from workers.settings import WorkerSettings

pytestmark = pytest.mark.ray

# Enough of them that one which is disturbed after its first is far from its end.
EPOCHS = 25

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]


@pytest.fixture
def dispatcher(start: Start, ray_cluster: RayCluster) -> subprocess.Popen[bytes]:
    return start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(ray_cluster.home / "run" / "ray-token"),
    )


def trial_processes(after: Record) -> list[psutil.Process]:
    """The living processes that a search's trials last said they train in."""
    pids = {
        event.trial_id: event.data["pid"] for event in after.events if event.kind == "trial.started"
    }
    return [psutil.Process(pid) for pid in pids.values() if psutil.pid_exists(pid)]


def test_faults_on_the_way_change_nothing_in_the_result(
    settings: WorkerSettings,
    dispatcher: subprocess.Popen[bytes],
    submit: Submit,
    record: Recorder,
) -> None:
    """One undisturbed search, one whose trial is killed, and one whose runner is."""
    undisturbed = submit(training={"epochs": EPOCHS}, trials={"seeds": [0, 1]})
    wait_until(lambda: record(undisturbed).search.status == "succeeded")
    expected = [trial.architecture_hash for trial in record(undisturbed).trials]
    assert record(undisturbed).search.attempt == 1

    with_lost_trial = submit(training={"epochs": EPOCHS}, trials={"seeds": [0, 1]})
    wait_until(lambda: record(with_lost_trial).kinds.count("trial.epoch") >= 2)
    lost = trial_processes(record(with_lost_trial))[0]
    lost.suspend()  # so that it cannot end before it is killed
    lost.kill()
    wait_until(lambda: record(with_lost_trial).search.status == "succeeded")
    after = record(with_lost_trial)
    assert after.search.attempt == 1
    assert "trial.interrupted" in after.kinds
    assert [trial.architecture_hash for trial in after.trials] == expected

    with_lost_runner = submit(training={"epochs": EPOCHS}, trials={"seeds": [0, 1]})
    wait_until(lambda: record(with_lost_runner).kinds.count("trial.epoch") >= 2)
    hold(settings, with_lost_runner).kill()
    wait_until(lambda: record(with_lost_runner).search.status == "succeeded")
    after = record(with_lost_runner)
    assert after.search.attempt == 2
    assert [trial.architecture_hash for trial in after.trials] == expected
    for number in (0, 1):
        epochs = [
            event.data["epoch"]
            for event in after.events
            if event.kind == "trial.epoch" and event.trial_id == after.trials[number].id
        ]
        assert epochs == list(range(1, EPOCHS + 1))


def test_a_cancelled_search_leaves_no_trial_behind(
    engine: Engine, dispatcher: subprocess.Popen[bytes], submit: Submit, record: Recorder
) -> None:
    search_id = submit(training={"epochs": 10_000}, trials={"seeds": [0, 1]})
    wait_until(lambda: record(search_id).kinds.count("trial.epoch") >= 2)
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
    wait_until(lambda: record(search_id).search.status == "cancelled")
    wait_until(lambda: not trial_processes(record(search_id)))


def test_what_a_trial_raised_is_told(
    settings: WorkerSettings,
    ray_cluster: RayCluster,
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    search_id = submit()
    folder = Path(settings.storage_root) / str(search_id) / "trial-0"
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where a folder should be")
    start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        DARTBOARD_TRIAL_FAILURES="1",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(ray_cluster.home / "run" / "ray-token"),
    )
    wait_until(lambda: record(search_id).search.ended_at)
    after = record(search_id)
    assert (after.search.status, after.search.reason) == ("failed", Reason.STORAGE_UNAVAILABLE)
    assert str(folder) in after.search.message
    (interrupted,) = [event for event in after.events if event.kind == "trial.interrupted"]
    assert interrupted.data["reason"] == Reason.STORAGE_UNAVAILABLE
    assert str(folder) in interrupted.data["message"]


@pytest.mark.usefixtures("dispatcher")
def test_a_trial_takes_over_the_process_of_the_one_before(
    settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search_id = submit(resources={"cpus": 2}, trials={"seeds": [3, 4]})  # only one has room
    wait_until(lambda: record(search_id).search.ended_at)
    after = record(search_id)
    assert after.search.status == "succeeded", after.search.message
    first, second = [event.data["pid"] for event in after.events if event.kind == "trial.started"]
    assert first == second
    logs = logs_of(str(settings.storage_root), search_id).open()
    told = [read(logs, trial_log(number, 1)).decode() for number in (0, 1)]
    for number, text in enumerate(told):
        assert f"trial {number}, seed {number + 3}, at epoch 0" in text
        assert f"trial {1 - number}" not in text


@pytest.mark.usefixtures("dispatcher")
def test_a_process_that_is_lost_between_two_trials_costs_nothing(
    settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search_id = submit(resources={"cpus": 2}, trials={"seeds": [3, 4]})
    wait_until(lambda: record(search_id).kinds.count("trial.epoch"))
    # Without a pause: the next trial takes the process over within some hundredths of a second.
    while "trial.succeeded" not in record(search_id).kinds:
        assert record(search_id).search.ended_at is None
    runner = hold(settings, search_id)
    (process,) = trial_processes(record(search_id))
    process.kill()
    process.wait(60)
    runner.resume()
    wait_until(lambda: record(search_id).search.ended_at)
    after = record(search_id)
    assert after.search.status == "succeeded", after.search.message
    for trial in after.trials:
        epochs = [
            event.data["epoch"]
            for event in after.events
            if event.kind == "trial.epoch" and event.trial_id == trial.id
        ]
        assert epochs == [1, 2]
