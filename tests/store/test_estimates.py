"""When those who wait will start: the simulation alone, and from what the store measured."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, update

from store import endings, epoch_reports, owners, queue, recording, searches
from store.demand import Share
from store.epoch_reports import EpochResult
from store.estimates import Queued, Running, starts
from store.leases import Lease
from store.models import Search
from store.room import Capacity, Node
from store.sessions import transaction
from tests.store.conftest import GENOTYPE

ONE = Node(cpus=1)
TWO_PLACES = Capacity((Node(cpus=2),))

Submit = Callable[..., UUID]
Claim = Callable[..., Lease]


def line(*seconds: float, owner: str = "ana", need: Node = ONE, count: int = 1) -> list[Queued]:
    return [Queued(uuid4(), owner, need, count, each) for each in seconds]


def seconds_of(found: dict[UUID, float], queued: list[Queued]) -> list[float | None]:
    return [found.get(each.search_id) for each in queued]


def test_each_starts_when_there_is_room_for_it() -> None:
    queued = line(10, 10, 10)
    running = [Running("ben", ONE, 1, 3), Running("ben", ONE, 1, 5)]
    found = starts(TWO_PLACES, running, queued, {})
    assert seconds_of(found, queued) == [3, 5, 13]


def test_a_large_one_waits_for_all_that_it_needs_and_holds_the_line() -> None:
    queued = [*line(10, need=Node(cpus=2)), *line(1)]
    running = [Running("ben", ONE, 1, 3), Running("ben", ONE, 1, 5)]
    found = starts(TWO_PLACES, running, queued, {})
    assert seconds_of(found, queued) == [5, 15]


def test_an_owner_at_their_quota_is_passed_by() -> None:
    queued = [*line(10, 10), *line(4, owner="ben")]
    found = starts(TWO_PLACES, [], queued, {"ana": Share(max_running=1)})
    assert seconds_of(found, queued) == [0, 10, 0]


def test_what_nothing_lets_start_has_no_time() -> None:
    queued = line(10)
    assert starts(TWO_PLACES, [], queued, {"ana": Share(max_running=0)}) == {}
    assert starts(Capacity(()), [], queued, {}) == {}


def seconds_until(engine: Engine, search_id: UUID) -> float | None:
    with transaction(engine) as session:
        waiting = queue.waiting(session, searches.get(session, search_id))
    assert waiting is not None
    start = waiting.estimated_start
    return None if start is None else (start - datetime.now(UTC)).total_seconds()


def test_the_pace_of_running_trials_tells(engine: Engine, submit: Submit, claim: Claim) -> None:
    with transaction(engine) as session:
        queue.heartbeat(session, "d", host="h", pid=1, capacity=TWO_PLACES)
    submit(training={"epochs": 11}, trials={"seeds": [0, 1]})
    lease = claim(TWO_PLACES)
    waiting = submit()
    assert seconds_until(engine, waiting) is None
    with transaction(engine) as session:
        for trial in recording.open_trials(session, lease):
            recording.trial_started(session, lease, trial.id, from_epoch=0, node="n", pid=1)
            result = EpochResult(1, {"seconds": 60.0}, GENOTYPE)
            epoch_reports.epoch_ended(session, lease, trial.id, result)
    # Ten epochs of a minute are left.
    assert seconds_until(engine, waiting) == pytest.approx(600, abs=30)
    # Behind it, one starts when the first that does not fit beside it has ended.
    with transaction(engine) as session:
        session.execute(update(Search).values(priority=Search.priority))
    behind = [submit(resources={"cpus": 2}), submit()]
    first, second = (seconds_until(engine, each) for each in behind)
    assert first == pytest.approx(1200, abs=60)
    assert second == pytest.approx(1800, abs=90)


def test_what_ended_tells_how_long_others_take(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    with transaction(engine) as session:
        queue.heartbeat(session, "d", host="h", pid=1, capacity=TWO_PLACES)
    submit()
    lease = claim(TWO_PLACES)
    with transaction(engine) as session:
        (trial,) = recording.open_trials(session, lease)
        recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
        endings.finish(session, lease)
        session.execute(update(Search).values(ran_seconds=100))
    queued = [submit() for _ in range(60)]
    assert seconds_until(engine, queued[0]) == pytest.approx(0, abs=10)
    assert seconds_until(engine, queued[2]) == pytest.approx(100, abs=10)
    # Beyond those that are followed one by one, the line goes on as it began.
    assert seconds_until(engine, queued[-1]) == pytest.approx(2900, rel=0.05)


def test_what_can_never_start_has_no_time(engine: Engine, submit: Submit) -> None:
    with transaction(engine) as session:
        queue.heartbeat(session, "d", host="h", pid=1, capacity=TWO_PLACES)
        owners.change(session, owners.LOCAL, {"max_gpus": 0})
    assert seconds_until(engine, submit()) == pytest.approx(0, abs=10)
    assert seconds_until(engine, submit(resources={"cpus": 3})) is None
    with transaction(engine) as session:
        owners.change(session, owners.LOCAL, {"max_running": 0})
    assert seconds_until(engine, submit()) is None
