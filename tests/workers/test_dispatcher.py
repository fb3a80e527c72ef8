"""The dispatcher with real runner processes, whose trials run inside them."""

import signal
from collections.abc import Callable
from uuid import UUID

from sqlalchemy import Engine

from search_core.search import SearchRun
from store import queue, verbs
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record, Start, hold, runners_on, tiny, wait_until
from workers.settings import WorkerSettings

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]


def test_a_killed_runner_is_noticed_and_the_search_ends_the_same(
    settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    start()
    search_id = submit(training={"epochs": 12})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    hold(settings, search_id).kill()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    after = record(search_id)
    assert after.search.attempt == 2
    requeued = next(event for event in after.events if event.kind == "search.requeued")
    assert requeued.data["reason"] == Reason.RUNNER_CRASHED
    assert "SIGKILL" in requeued.data["message"]
    resumed = [event for event in after.events if event.kind == "trial.started"][-1]
    assert resumed.data["from_epoch"] >= 1
    epochs = [event.data["epoch"] for event in after.events if event.kind == "trial.epoch"]
    assert epochs == list(range(1, 13))
    undisturbed = SearchRun(tiny(training={"epochs": 12}), seed=0)
    while not undisturbed.finished:
        undisturbed.run_epoch()
    assert after.search.recommended_hash == undisturbed.genotype().hash


def test_a_dispatcher_and_runner_killed_together_lose_nothing(
    settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    first = start(DARTBOARD_LEASE_SECONDS="5")
    search_id = submit(training={"epochs": 12})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    runner = hold(settings, search_id)
    first.kill()
    runner.kill()
    start(DARTBOARD_LEASE_SECONDS="5")
    # Nobody saw the runner die: its lease has to run out.
    wait_until(lambda: record(search_id).search.status == "succeeded")
    kinds = [event for event in record(search_id).events if event.kind == "search.requeued"]
    assert kinds[0].data["reason"] == Reason.LEASE_EXPIRED


def test_a_runner_outlives_its_dispatcher(
    settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    first = start()
    search_id = submit(training={"epochs": 4})
    wait_until(lambda: runners_on(settings))
    first.kill()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    assert record(search_id).search.attempt == 1


def test_a_running_search_is_cancelled_long_before_its_lease_is_renewed(
    engine: Engine,
    settings: WorkerSettings,
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    start(DARTBOARD_LEASE_SECONDS="3600")
    search_id = submit(training={"epochs": 10_000})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
    wait_until(lambda: record(search_id).search.status == "cancelled")
    wait_until(lambda: not runners_on(settings))
    assert [trial.status for trial in record(search_id).trials] == ["cancelled"]


def test_two_dispatchers_share_the_queue(
    settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    start()
    start()
    ids = [submit() for _ in range(3)]
    wait_until(lambda: all(record(i).search.status == "succeeded" for i in ids))
    assert [record(search_id).search.attempt for search_id in ids] == [1] * 3


def test_a_stopped_dispatcher_puts_its_searches_back(
    engine: Engine,
    settings: WorkerSettings,
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    process = start()
    search_id = submit(training={"epochs": 10_000})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    after = record(search_id)
    assert (after.search.status, after.search.reason) == ("queued", Reason.SHUTDOWN)
    assert after.search.failures == 0
    assert runners_on(settings) == []
    with transaction(engine) as session:
        assert queue.dispatchers_seen(session) == []


def test_a_runner_that_cannot_be_started_costs_the_search_nothing(
    settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    logs = settings.home / "logs"
    logs.write_text("a file where a folder should be")
    process = start()
    search_id = submit()
    wait_until(lambda: "search.requeued" in record(search_id).kinds)
    assert record(search_id).search.reason == Reason.RUNNER_NOT_STARTED
    assert record(search_id).search.failures == 0
    assert process.poll() is None
    logs.unlink()
    wait_until(lambda: record(search_id).search.status == "succeeded")


def test_a_dispatcher_without_ray_says_what_to_set(settings: WorkerSettings, start: Start) -> None:
    process = start(DARTBOARD_EXECUTOR="ray")
    assert process.wait(120) == 2
    assert "DARTBOARD_RAY_ADDRESS" in (settings.home / "dispatcher.log").read_text()


def test_a_database_that_was_never_migrated_is_named(
    settings: WorkerSettings, start: Start, postgres_url: str
) -> None:
    process = start(DARTBOARD_DATABASE_URL=postgres_url)
    assert process.wait(120) == 1
    assert "python -m migrations" in (settings.home / "dispatcher.log").read_text()


def test_a_statement_that_fails_ends_no_dispatcher(
    engine: Engine, settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE foreign_key_violation; END'"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON dispatchers"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    dispatcher = start()
    log = settings.home / "dispatcher.log"
    wait_until(lambda: "a transaction failed; going on" in log.read_text())
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse ON dispatchers")
    search_id = submit()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    assert dispatcher.poll() is None
