"""Stacked seeds on a real Ray cluster, over the death of their process and of their runner."""

import subprocess
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from store import verbs
from store.sessions import transaction
from tests.workers.conftest import RayCluster, Record, Start, hold, wait_until
from tests.workers.test_ray_trials import trial_processes
from workers.settings import WorkerSettings

pytestmark = pytest.mark.ray

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

EPOCHS = 12
TRIALS = {"seeds": [0, 1, 2, 3, 4], "stack": 4}
SIDE_BY_SIDE: dict[str, Any] = {"algorithm": {"relaxation": "plain"}, "trials": TRIALS}


@pytest.fixture
def dispatcher(start: Start, ray_cluster: RayCluster) -> subprocess.Popen[bytes]:
    return start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(ray_cluster.home / "run" / "ray-token"),
    )


def check_epochs(after: Record) -> None:
    """Each epoch of each trial was recorded once, in order."""
    for trial in after.trials:
        epochs = [
            event.data["epoch"]
            for event in after.events
            if event.kind == "trial.epoch" and event.trial_id == trial.id
        ]
        assert epochs == list(range(1, EPOCHS + 1))


def stacked_epochs(now: Record) -> int:
    """Epochs of a trial of the stack; the one beside it is faster, and says nothing of it."""
    return sum(
        event.kind == "trial.epoch" and event.trial_id == now.trials[0].id for event in now.events
    )


def losses(after: Record) -> list[tuple[float, float]]:
    return [
        (trial.metrics["train_loss"], trial.metrics["validation_loss"]) for trial in after.trials
    ]


@pytest.mark.usefixtures("dispatcher")
def test_faults_on_the_way_change_nothing_in_what_a_stack_comes_to(
    settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    undisturbed = submit(training={"epochs": EPOCHS}, **SIDE_BY_SIDE)
    wait_until(lambda: record(undisturbed).search.ended_at)
    expected = record(undisturbed)
    assert expected.search.status == "succeeded", expected.search.message
    check_epochs(expected)
    pids = [event.data["pid"] for event in expected.events if event.kind == "trial.started"]
    assert len(pids) == 5
    assert len(set(pids)) == 2  # four in one process, the fifth in another

    with_lost_process = submit(training={"epochs": EPOCHS}, **SIDE_BY_SIDE)
    wait_until(lambda: stacked_epochs(record(with_lost_process)) >= 2)
    stacked = record(with_lost_process).trials[0].id
    pid = next(
        event.data["pid"]
        for event in record(with_lost_process).events
        if event.kind == "trial.started" and event.trial_id == stacked
    )
    (process,) = {each for each in trial_processes(record(with_lost_process)) if each.pid == pid}
    process.suspend()
    process.kill()
    wait_until(lambda: record(with_lost_process).search.ended_at)
    after = record(with_lost_process)
    assert after.search.status == "succeeded", after.search.message
    assert after.kinds.count("trial.interrupted") == 4
    check_epochs(after)
    assert losses(after) == losses(expected)

    with_lost_runner = submit(training={"epochs": EPOCHS}, **SIDE_BY_SIDE)
    wait_until(lambda: stacked_epochs(record(with_lost_runner)) >= 2)
    hold(settings, with_lost_runner).kill()
    wait_until(lambda: record(with_lost_runner).search.ended_at)
    after = record(with_lost_runner)
    assert after.search.status == "succeeded", after.search.message
    assert after.search.attempt == 2
    check_epochs(after)
    assert losses(after) == losses(expected)


@pytest.mark.usefixtures("dispatcher")
def test_a_cancelled_stack_leaves_no_process_behind(
    engine: Engine, submit: Submit, record: Recorder
) -> None:
    search_id = submit(training={"epochs": 10_000}, trials=TRIALS)
    wait_until(lambda: record(search_id).kinds.count("trial.epoch") >= 4)
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
    wait_until(lambda: record(search_id).search.status == "cancelled")
    wait_until(lambda: not trial_processes(record(search_id)))
    assert {trial.status for trial in record(search_id).trials} == {"cancelled"}


@pytest.mark.usefixtures("dispatcher")
def test_each_of_a_stack_that_diverges_says_so_itself(submit: Submit, record: Recorder) -> None:
    search_id = submit(
        training={"learning_rate": 10.0, "weight_decay": 10.0, "batch_size": 64, "epochs": 4},
        trials={"seeds": [0, 1], "stack": 2},
    )
    wait_until(lambda: record(search_id).search.ended_at)
    after = record(search_id)
    assert [trial.reason for trial in after.trials] == ["diverged", "diverged"]
    assert after.kinds.count("trial.failed") == 2
    assert "trial.interrupted" not in after.kinds
