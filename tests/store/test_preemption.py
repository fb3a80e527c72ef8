"""Making room: who is asked to let go, who is not, and what becomes of them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from store import endings, events, leases, queue, searches, verbs
from store.leases import Lease
from store.room import Capacity, Node
from store.sessions import transaction
from tests.store.conftest import MINUTE

THREE = Capacity((Node(cpus=3),))

Submit = Callable[..., UUID]


@pytest.fixture
def run(engine: Engine, submit: Submit) -> Callable[..., Lease]:
    """Submits a search and claims it."""

    def run(**fields: Any) -> Lease:
        search_id = submit(**fields)
        lease = claim(engine)
        assert lease is not None
        assert lease.search_id == search_id
        return lease

    return run


def claim(engine: Engine) -> Lease | None:
    with transaction(engine) as session:
        return leases.claim(session, THREE, holder="x", duration=MINUTE)


def asked(engine: Engine, *held: Lease) -> list[bool]:
    with transaction(engine) as session:
        return [
            searches.get(session, lease.search_id).preempt_requested_at is not None
            for lease in held
        ]


def test_the_youngest_of_the_lowest_priority_makes_room_and_waits_again(
    engine: Engine, submit: Submit, run: Callable[..., Lease]
) -> None:
    old = run(preemptible=True)
    young = run(preemptible=True)
    higher = run(preemptible=True, priority=1)
    urgent = submit(priority=5)
    for _ in range(2):
        assert claim(engine) is None
        assert asked(engine, old, young, higher) == [False, True, False]
    with transaction(engine) as session:
        queue.heartbeat(session, "d", host="h", pid=1, capacity=THREE)
        waiting = queue.waiting(session, searches.get(session, urgent))
        assert waiting is not None
        assert waiting.why == "the cluster is full, and others are making room"
        assert leases.renew(session, young, duration=MINUTE).halt
        assert not leases.renew(session, old, duration=MINUTE).halt
        assert endings.halted(session, young) == "queued"
    with transaction(engine) as session:
        victim = searches.get(session, young.search_id)
        assert (victim.status, victim.reason, victim.failures) == ("queued", "preempted", 0)
        assert victim.not_before is None
        kinds = [event.kind for event in events.page(session, young.search_id)]
    assert kinds[-2:] == ["search.preempt_requested", "search.requeued"]
    winner = claim(engine)
    assert winner is not None
    assert winner.search_id == urgent
    assert claim(engine) is None
    with transaction(engine) as session:
        verbs.request_cancel(session, urgent)
        endings.cancelled(session, winner)
    again = claim(engine)
    assert again is not None
    assert (again.search_id, again.attempt) == (young.search_id, 2)


@pytest.mark.parametrize("fields", [{"preemptible": False}, {"preemptible": True, "priority": 5}])
def test_who_is_not_preemptible_or_as_urgent_is_left_alone(
    engine: Engine, submit: Submit, run: Callable[..., Lease], fields: dict[str, Any]
) -> None:
    held = [run(**fields) for _ in range(3)]
    submit(priority=5)
    assert claim(engine) is None
    assert asked(engine, *held) == [False] * 3


def test_nobody_is_asked_where_it_would_not_make_room(
    engine: Engine, submit: Submit, run: Callable[..., Lease]
) -> None:
    held = [run(preemptible=True), run(preemptible=False), run(preemptible=False)]
    submit(priority=5, resources={"cpus": 2})
    assert claim(engine) is None
    assert asked(engine, *held) == [False] * 3


def test_no_more_are_asked_than_it_takes(
    engine: Engine, submit: Submit, run: Callable[..., Lease]
) -> None:
    wide = run(preemptible=True, priority=1, resources={"cpus": 2})
    small = run(preemptible=True)
    submit(priority=5, resources={"cpus": 2})
    assert claim(engine) is None
    # The small one would be asked first, but is of no use once the wide one goes.
    assert asked(engine, wide, small) == [True, False]


def test_what_others_let_go_of_anyway_is_waited_for(
    engine: Engine, submit: Submit, run: Callable[..., Lease]
) -> None:
    held = [run(preemptible=True) for _ in range(3)]
    with transaction(engine) as session:
        verbs.request_pause(session, held[0].search_id)
    submit(priority=5)
    assert claim(engine) is None
    assert asked(engine, *held) == [False] * 3
