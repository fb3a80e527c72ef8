"""Pausing, preempting and running out of time, with real runner processes."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, update

from search_core.search import SearchRun
from store import verbs
from store.models import DeletedSearch, Search
from store.sessions import transaction
from tests.workers.conftest import (
    RayCluster,
    Record,
    Start,
    hold,
    runners_on,
    tiny,
    wait_until,
)
from workers.settings import WorkerSettings

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]
EPOCHS = 20


def ask(engine: Engine, verb: Callable[..., Search], search_id: UUID) -> None:
    with transaction(engine) as session:
        verb(session, search_id)


def undisturbed(seed: int) -> str:
    run = SearchRun(tiny(training={"epochs": EPOCHS}), seed=seed)
    while not run.finished:
        run.run_epoch()
    return run.genotype().hash


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of a dispatcher whose trials run inside the runner, or on Ray."""
    if request.param == "inline":
        return {"DARTBOARD_EXECUTOR": "inline"}
    cluster: RayCluster = request.getfixturevalue("ray_cluster")
    return {
        "DARTBOARD_EXECUTOR": "ray",
        "DARTBOARD_RAY_ADDRESS": cluster.address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(cluster.home / "run" / "ray-token"),
    }


def test_a_paused_search_goes_on_from_its_last_epoch_and_ends_the_same(
    engine: Engine,
    settings: WorkerSettings,
    environment: dict[str, str],
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    start(**environment)
    search_id = submit(training={"epochs": EPOCHS}, trials={"seeds": [0, 1]})
    wait_until(lambda: record(search_id).kinds.count("trial.epoch") >= 2)
    ask(engine, verbs.request_pause, search_id)
    wait_until(lambda: record(search_id).search.status == "paused")
    wait_until(lambda: not runners_on(settings))
    paused = record(search_id)
    assert {trial.status for trial in paused.trials} == {"queued"}
    epochs = [trial.epoch for trial in paused.trials]
    assert 0 < sum(epochs) < 2 * EPOCHS
    # Nobody takes it up by itself, though there is room.
    assert [event.kind for event in paused.events if event.trial_id is None][-1] == "search.paused"
    ask(engine, verbs.resume, search_id)
    wait_until(lambda: record(search_id).search.status == "succeeded")
    after = record(search_id)
    assert after.search.attempt == 2
    assert after.search.failures == 0
    # The epoch that ran when the pause came was completed: none is computed twice.
    from_epochs = {
        event.trial_id: event.data["from_epoch"]
        for event in after.events
        if event.kind == "trial.started"
    }
    assert [from_epochs[trial.id] for trial in after.trials] == epochs
    assert [trial.architecture_hash for trial in after.trials] == [undisturbed(0), undisturbed(1)]


def test_a_pause_that_is_withdrawn_costs_nothing_but_a_moment(
    engine: Engine, start: Start, submit: Submit, record: Recorder, settings: WorkerSettings
) -> None:
    start()
    search_id = submit(training={"epochs": EPOCHS})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    runner = hold(settings, search_id)
    # It hears of both at once, once it goes on.
    ask(engine, verbs.request_pause, search_id)
    ask(engine, verbs.resume, search_id)
    runner.resume()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    assert record(search_id).search.attempt == 1


def test_what_runs_out_of_time_fails_and_is_retried_from_its_checkpoint(
    engine: Engine, environment: dict[str, str], start: Start, submit: Submit, record: Recorder
) -> None:
    start(**environment)
    # So long that it has not ended then, however fast the machine is.
    search_id = submit(training={"epochs": 10_000}, time_limit=600)
    wait_until(lambda: record(search_id).kinds.count("trial.epoch") >= 2)
    with transaction(engine) as session:
        session.execute(update(Search).values(time_limit=1))
    # What wakes a runner is of no matter: here, a word about its search.
    with transaction(engine) as session:
        verbs.change(session, search_id, {"priority": 1})
    wait_until(lambda: record(search_id).search.status == "failed")
    failed = record(search_id)
    assert failed.search.reason == "time_limit"
    assert "Retry it" in failed.search.message
    reached = failed.trials[0].epoch
    with transaction(engine) as session:
        session.execute(update(Search).values(time_limit=None))
    ask(engine, verbs.retry, search_id)
    wait_until(lambda: record(search_id).kinds.count("trial.started") == 2)
    started = [event for event in record(search_id).events if event.kind == "trial.started"]
    assert started[-1].data["from_epoch"] >= reached
    ask(engine, verbs.request_cancel, search_id)
    wait_until(lambda: record(search_id).search.status == "cancelled")


def test_a_search_is_cancelled_while_it_starts(
    engine: Engine, environment: dict[str, str], start: Start, submit: Submit, record: Recorder
) -> None:
    start(**environment)
    search_id = submit(training={"epochs": 10_000})
    wait_until(lambda: record(search_id).search.status == "running")
    ask(engine, verbs.request_cancel, search_id)
    wait_until(lambda: record(search_id).search.status == "cancelled")
    assert "trial.epoch" not in record(search_id).kinds


def test_the_files_of_a_deleted_search_are_removed(
    engine: Engine, settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    start()
    search_id, other = submit(), submit()
    for each in (search_id, other):
        wait_until(lambda each=each: record(each).search.status == "succeeded")  # type: ignore[misc]
    folder = Path(settings.storage_root) / str(search_id)
    assert any(_files(folder))
    with transaction(engine) as session:
        verbs.delete(session, search_id)
        # As if it had been some time ago.
        long_ago: Any = DeletedSearch.deleted_at - timedelta(hours=1)
        session.execute(update(DeletedSearch).values(deleted_at=long_ago))
    wait_until(lambda: not folder.exists())
    wait_until(lambda: _are_noted_as_removed(engine))
    assert any(_files(Path(settings.storage_root) / str(other)))


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _are_noted_as_removed(engine: Engine) -> bool:
    with transaction(engine) as session:
        return all(each.files_removed_at is not None for each in session.query(DeletedSearch))
