"""The queue as people see it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Engine, select

from store import queue, searches, verbs
from store.leases import Capacity, Lease, Node
from store.models import EndedCount
from store.sessions import transaction
from store.states import SearchStatus

Submit = Callable[..., UUID]
Claim = Callable[..., Lease]
TWO_CPUS = Capacity((Node(cpus=2),))


def beat(engine: Engine, capacity: Capacity = TWO_CPUS) -> None:
    with transaction(engine) as session:
        queue.heartbeat(session, "d1", host="here", pid=1, capacity=capacity)


def whys(engine: Engine) -> list[str]:
    with transaction(engine) as session:
        overview = queue.overview(session)
        for place in overview.waiting:
            assert _same(queue.waiting(session, place.search), place)
        return [place.why for place in overview.waiting]


def _same(one: queue.Waiting | None, other: queue.Waiting) -> bool:
    """Whether two agree; what starts at once was asked for at two moments."""
    assert one is not None
    moments = (one.estimated_start, other.estimated_start)
    assert [moment is None for moment in moments].count(True) in (0, 2)
    return replace(one, estimated_start=other.estimated_start) == other


def test_an_empty_queue_counts_nothing(engine: Engine) -> None:
    with transaction(engine) as session:
        overview = queue.overview(session)
    assert set(overview.counts.values()) == {0}
    assert overview.capacity.nodes == ()


def test_why_a_search_waits(engine: Engine, submit: Submit, claim: Claim) -> None:
    submit()
    assert whys(engine) == ["no dispatcher is running"]
    beat(engine)
    assert whys(engine) == ["it is about to start"]
    beat(engine, Capacity(nodes=()))
    assert whys(engine) == ["the cluster has no node yet"]
    beat(engine)
    claim()
    submit(resources={"cpus": 4}, priority=1)
    submit(resources={"cpus": 2})
    submit()
    submit()
    assert whys(engine) == [
        "no node has 4 CPUs, which each of its trials needs",
        "the cluster is full",
        "1 that some node can hold is ahead of it",
        "2 that some node can hold are ahead of it",
    ]


def test_what_no_node_can_hold_keeps_nobody_waiting(engine: Engine, submit: Submit) -> None:
    beat(engine)
    submit(resources={"cpus": 1, "gpus": 1}, priority=2)
    submit(resources={"cpus": 4, "gpus": 2}, priority=1)
    submit()
    assert whys(engine) == [
        "no node has 1 GPU, which each of its trials needs",
        "no node has 4 CPUs and 2 GPUs, which each of its trials needs",
        "no node can hold what is ahead of it, so it is about to start",
    ]


def test_who_waits_behind_others(engine: Engine, submit: Submit) -> None:
    beat(engine)
    for _ in range(3):
        submit()
    assert whys(engine) == ["it is about to start", "1 is ahead of it", "2 are ahead of it"]


def test_positions_follow_the_order_of_claims(engine: Engine, submit: Submit, claim: Claim) -> None:
    for priority in (0, 5, -5, 5):
        submit(priority=priority)
    with transaction(engine) as session:
        expected = [place.search.id for place in queue.overview(session).waiting]
    assert [claim().search_id for _ in range(4)] == expected


def test_running_searches_hold_cpus_and_show(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    claim()
    beat(engine)
    with transaction(engine) as session:
        overview = queue.overview(session)
        assert [search.id for search in overview.running] == [search_id]
        assert overview.reserved_cpus == 2
        assert overview.capacity == TWO_CPUS
        assert queue.waiting(session, searches.get(session, search_id)) is None


@pytest.mark.parametrize(
    ("memories", "largest"),
    [([], None), ([8e9], 8e9), ([8e9, 16e9], 16e9), ([8e9, None], None)],
)
def test_the_largest_memory_is_that_of_all_nodes_or_unknown(
    engine: Engine, memories: list[float | None], largest: float | None
) -> None:
    with transaction(engine) as session:
        assert queue.largest_memory(session) is None  # nobody was seen
    beat(engine, Capacity(tuple(Node(cpus=2, memory=memory) for memory in memories)))
    with transaction(engine) as session:
        assert queue.largest_memory(session) == largest


def test_a_dispatcher_that_signs_off_is_forgotten(engine: Engine) -> None:
    beat(engine)
    with transaction(engine) as session:
        assert [dispatcher.id for dispatcher in queue.dispatchers_seen(session)] == ["d1"]
        queue.sign_off(session, "d1")
        queue.sign_off(session, "d1")
        assert queue.dispatchers_seen(session) == []


def test_custom_resources_and_shares_are_seen_and_counted(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    nodes = Node(cpus=4, gpus=1, custom={"a100": 2}), Node(cpus=4, custom={"scratch": 0.5})
    beat(engine, Capacity(nodes))
    for _ in range(3):
        submit(resources={"gpus": 0.1, "custom": {"a100": 0.1}}, priority=1)
        assert claim(Capacity(nodes)) is not None
    submit(resources={"custom": {"v100": 1}})
    submit(resources={"gpus": 0.5, "custom": {"scratch": 0.5}})
    submit(resources={"cpus": 1, "gpus": 0.8})
    assert whys(engine) == [
        "no node has 1 v100, which each of its trials needs",
        "no node has 0.5 GPUs and 0.5 scratch together, which each of its trials needs",
        "the cluster is full",
    ]
    with transaction(engine) as session:
        overview = queue.overview(session)
        assert overview.capacity == Capacity(nodes)
        assert (overview.reserved_gpus, overview.reserved_custom) == (0.3, {"a100": 0.3})
        for place in overview.waiting:
            assert _same(queue.waiting(session, place.search), place)


def test_a_search_that_is_claimed_while_somebody_looks_at_it_is_told(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    beat(engine)
    search_id = submit()
    with transaction(engine) as session:
        seen = searches.get(session, search_id)
        claim()
        # It was queued when it was read, and is in nobody's line any more.
        assert queue.waiting(session, seen) is None
        assert queue.overview(session).reserved_cpus == 1


def test_counts_that_are_folded_at_once_are_folded_once(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    for _ in range(3):
        search_id = submit()
        with transaction(engine) as session:
            verbs.request_cancel(session, search_id)
    with ThreadPoolExecutor(1) as threads:
        with transaction(engine) as session:
            queue.fold_counts(session)
            other = threads.submit(_fold, engine)
            with pytest.raises(TimeoutError):
                other.result(0.2)
        other.result(10)
    with transaction(engine) as session:
        assert queue.count(session)[SearchStatus.CANCELLED] == 3
        assert session.scalars(select(EndedCount.number)).all() == [3]


def _fold(engine: Engine) -> None:
    with transaction(engine) as session:
        queue.fold_counts(session)
