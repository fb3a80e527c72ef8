"""Several dispatchers on one database, as on several hosts: killed, asleep, with wrong clocks."""

import os
import re
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from sqlalchemy import Engine, text, update

from search_core.search import SearchRun
from store.models import Search
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record, Start, runners_on, tiny, wait_until
from workers.settings import WorkerSettings

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

NUM_SEARCHES = 12
LEASE_SECONDS = 10
DAY = timedelta(days=1)
SKEWED = Path(__file__).with_name("skewed_clock")


def of_seed(seed: int) -> dict[str, Any]:
    """A search of its own, which takes a runner little but its start."""
    return {"trials": {"seeds": [seed]}, "algorithm": {"relaxation": "plain"}}


def host(settings: WorkerSettings, name: str, skew: timedelta = timedelta(0)) -> dict[str, str]:
    """The environment of a dispatcher on a host of its own, which shares the checkpoints."""
    return {
        "DARTBOARD_HOME": str(settings.home / name),
        "DARTBOARD_STORAGE": str(settings.home / "checkpoints"),
        "DARTBOARD_LEASE_SECONDS": str(LEASE_SECONDS),
        "PYTHONPATH": os.pathsep.join([str(SKEWED), os.environ.get("PYTHONPATH", "")]),
        "SKEW_SECONDS": str(skew.total_seconds()),
    }


_RUNNER_LOG = re.compile(r"([0-9a-f-]{36})-[0-9]+\.log")


def runners_of(dispatcher: subprocess.Popen[bytes]) -> dict[UUID, psutil.Process]:
    """The runners that a dispatcher has started, by their searches."""
    found = {}
    for process in psutil.Process(dispatcher.pid).children():
        try:
            log = Path(f"/proc/{process.pid}/fd/1").readlink()
        except OSError:
            continue
        # What it was given to run is in the name of the log that it writes, from then on.
        if log.parent.name == "runners" and (named := _RUNNER_LOG.fullmatch(log.name)):
            found[UUID(named[1])] = process
    return found


def put_to_sleep(
    dispatcher: subprocess.Popen[bytes], record: Recorder
) -> dict[UUID, psutil.Process]:
    """Stops a host in its tracks while it runs searches; gives the runners of those."""
    host = psutil.Process(dispatcher.pid)
    while True:
        wait_until(lambda: runners_of(dispatcher))
        host.suspend()
        runners = runners_of(dispatcher)
        for runner in runners.values():
            runner.suspend()
        running = {key: each for key, each in runners.items() if is_running(record(key))}
        # Those that have recorded an end only clear up, and nobody would wake them.
        for key in runners.keys() - running.keys():
            runners[key].resume()
        if running:
            return running
        host.resume()


def is_running(now: Record) -> bool:
    """Whether a search has not ended."""
    return now.search.status == "running"


def check_story(record: Record) -> None:
    """Each attempt had one owner, and began after the one before it was over."""
    attempts, owned = [], False
    for event in record.events:
        if event.kind == "search.running":
            assert not owned, "claimed while somebody held it"
            owned = True
            attempts.append(event.data["attempt"])
            assert event.data["holder"]
        elif event.kind in ("search.requeued", "search.succeeded"):
            assert owned
            owned = False
    assert attempts == list(range(1, len(attempts) + 1))
    assert record.kinds.count("search.succeeded") == 1
    assert record.kinds[-1] == "search.succeeded"
    for trial in record.trials:
        assert trial.status == "succeeded"
        epochs = [event.data["epoch"] for event in record.events if event.kind == "trial.epoch"]
        assert epochs == list(range(1, trial.epochs + 1))


def wall_clock(engine: Engine) -> dict[str, tuple[datetime, datetime]]:
    """The first and the last of the times in each column of the database that has some."""
    found = {}
    with transaction(engine) as session:
        columns = session.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.columns "
                "WHERE table_schema = 'public' AND data_type LIKE 'timestamp%'"
            )
        ).all()
        for table, column in columns:
            first, last = session.execute(
                text(f'SELECT min("{column}"), max("{column}") FROM "{table}"')
            ).one()
            if first is not None:
                found[f"{table}.{column}"] = (first, last)
    return found


def now(engine: Engine) -> datetime:
    with transaction(engine) as session:
        moment = session.scalar(text("SELECT clock_timestamp()"))
    assert isinstance(moment, datetime)
    return moment


def test_each_search_is_run_by_one_dispatcher_at_a_time_whatever_happens_to_them(
    engine: Engine, settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    began = now(engine)
    ids = [submit(**of_seed(seed)) for seed in range(NUM_SEARCHES)]
    # One is started when the one before is away: whose runner ends claims the next search at once,
    # so that of several one could have all of them.
    fast = start(**host(settings, "fast", DAY))
    killed = put_to_sleep(fast, record)
    fast.kill()
    for runner in killed.values():
        runner.kill()
    slow = start(**host(settings, "slow", -DAY))
    asleep = put_to_sleep(slow, record)
    start(**host(settings, "right"))
    # The host sleeps for longer than its leases, and others do its work.
    wait_until(lambda: all(record(each).search.status == "succeeded" for each in asleep))
    for process in (*asleep.values(), psutil.Process(slow.pid)):
        process.resume()

    def has_ended(search_id: UUID) -> bool:
        return record(search_id).search.ended_at is not None

    for search_id in ids:
        wait_until(partial(has_ended, search_id))
    wait_until(lambda: not runners_on(settings))
    for seed, search_id in enumerate(ids):
        after = record(search_id)
        check_story(after)
        taken_back = {e.data["reason"] for e in after.events if e.kind == "search.requeued"}
        # On a machine that is very busy others may lose theirs too; that changes nothing.
        assert taken_back <= {Reason.LEASE_EXPIRED}
        assert taken_back or search_id not in {*killed, *asleep}
        run = SearchRun(tiny(**of_seed(seed)), seed)
        while not run.finished:
            run.run_epoch()
        assert after.search.recommended_hash == run.genotype().hash
    holders = {
        event.data["holder"]
        for search_id in ids
        for event in record(search_id).events
        if event.kind == "search.running"
    }
    assert len(holders) == 3

    # The clocks were wrong, and no time in the database is theirs.
    told = (settings.home / "dispatcher.log").read_text()
    for wrong in (began + DAY, began - DAY):
        assert f"{wrong:%Y-%m-%d}" in told
    columns = wall_clock(engine)
    assert {"searches.started_at", "events.created_at", "dispatchers.seen_at"} <= set(columns)
    # Its owner and keys are as old as the test run.
    for column, (first, last) in columns.items():
        assert began - DAY / 2 < first <= last < began + DAY / 2, column


def test_a_runner_that_believes_in_a_lease_it_has_lost_is_refused_by_the_database(
    engine: Engine, settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    first = start(**host(settings, "first") | {"DARTBOARD_LEASE_SECONDS": "3600"})
    search = submit(training={"epochs": 12})
    wait_until(lambda: "trial.epoch" in record(search).kinds)
    (late,) = put_to_sleep(first, record).values()
    # As if an hour had passed for everybody but the runner, whose own clock stood still.
    with engine.begin() as connection:
        connection.execute(update(Search).values(lease_expires_at=text("now() - interval '1 s'")))
    start(**host(settings, "second"))
    wait_until(lambda: record(search).search.status == "succeeded")
    before = record(search)
    check_story(before)

    late.resume()
    psutil.Process(first.pid).resume()
    wait_until(lambda: not runners_on(settings))
    (log,) = (settings.home / "first" / "logs" / "runners").glob("*.log")
    # By its own clock it holds the lease for almost an hour more: the database said so.
    assert "stopping without a word" in log.read_text()
    after = record(search)
    assert [event.number for event in after.events] == [event.number for event in before.events]


@pytest.mark.parametrize("package", ["store", "workers"])
def test_nobody_asks_for_the_date_by_another_way(package: str) -> None:
    """The one that a skewed clock does not skew."""
    sources = [*(Path(__file__).parents[2] / package).glob("**/*.py")]
    assert sources
    asking = re.compile(r"\b(datetime|date)\.(now|utcnow|today)\(|fromtimestamp\(time")
    assert [file.name for file in sources if asking.search(file.read_text())] == []
