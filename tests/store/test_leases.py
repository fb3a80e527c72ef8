"""Claiming and keeping searches, on a real PostgreSQL."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from store import leases, searches, verbs
from store.errors import LeaseLostError
from store.leases import Capacity, Lease, Node
from store.room import has_room
from store.sessions import transaction
from store.states import UNCOUNTED, Reason, SearchStatus
from tests.store.conftest import MINUTE, forget_pauses

Submit = Callable[..., UUID]
Claim = Callable[..., Lease | None]
TWO_CPUS = Capacity((Node(cpus=2),))


def status_of(engine: Engine, search_id: UUID) -> str:
    with transaction(engine) as session:
        return searches.get(session, search_id).status


def test_a_claim_takes_the_oldest_of_the_highest_priority(submit: Submit, claim: Claim) -> None:
    submit()
    first = submit(priority=5)
    submit(priority=5)
    lease = claim()
    assert lease is not None
    assert lease.search_id == first


def test_nothing_to_claim(claim: Claim) -> None:
    assert claim() is None


def test_a_claim_waits_for_room_and_small_searches_do_not_overtake(
    submit: Submit, claim: Claim
) -> None:
    submit(resources={"cpus": 1})
    assert claim(TWO_CPUS) is not None
    submit(resources={"cpus": 2})
    submit(resources={"cpus": 1})
    assert claim(TWO_CPUS) is None


def test_a_search_that_no_node_can_hold_is_passed_over(submit: Submit, claim: Claim) -> None:
    submit(resources={"cpus": 3}, priority=10)
    submit(resources={"cpus": 1, "gpus": 1}, priority=10)
    fitting = submit(resources={"cpus": 2})
    # Two nodes have four CPUs together, but no single one has three.
    lease = claim(Capacity((Node(cpus=2), Node(cpus=2))))
    assert lease is not None
    assert lease.search_id == fitting


def test_open_trials_of_running_searches_hold_their_room(submit: Submit, claim: Claim) -> None:
    submit(trials={"seeds": [0, 1]})
    submit()
    assert claim(TWO_CPUS) is not None
    assert claim(TWO_CPUS) is None


def test_open_trials_that_are_stacked_hold_the_room_of_one(submit: Submit, claim: Claim) -> None:
    submit(trials={"seeds": [0, 1, 2, 3], "stack": 4})
    submit()
    submit()
    assert claim(TWO_CPUS) is not None
    assert claim(TWO_CPUS) is not None
    assert claim(TWO_CPUS) is None


def test_claims_at_the_same_moment_do_not_share_the_same_room(
    engine: Engine, submit: Submit
) -> None:
    submit(resources={"cpus": 2})
    submit(resources={"cpus": 1})
    small_first = threading.Event()

    def claim_later() -> Lease | None:
        small_first.wait()
        with transaction(engine) as session:
            return leases.claim(session, TWO_CPUS, holder="later", duration=MINUTE)

    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(claim_later)
        with transaction(engine) as session:
            assert leases.claim(session, TWO_CPUS, holder="first", duration=MINUTE) is not None
            small_first.set()
            wait([later], timeout=0.5)
            assert not later.done()
        assert later.result() is None


@pytest.mark.parametrize(
    ("nodes", "held", "wanted", "fits"),
    [
        ([(2, 0)], [], (2, 0), True),
        ([(2, 0)], [(1, 0)], (2, 0), False),
        # One GPU is free on each node, but a trial needs its two on one.
        ([(8, 2), (8, 2)], [(1, 1), (1, 1)], (1, 2), True),
        ([(8, 2), (8, 2)], [(1, 1), (1, 1), (1, 1)], (1, 2), False),
        # Four open trials of a search that started with room for two: they come first.
        ([(2, 0)], [(1, 0)] * 4, (1, 0), False),
        ([], [], (1, 0), False),
    ],
)
def test_room_is_on_one_node(
    nodes: list[tuple[int, int]],
    held: list[tuple[int, int]],
    wanted: tuple[int, int],
    fits: bool,
) -> None:
    capacity = Capacity(tuple(Node(*node) for node in nodes))
    assert has_room(capacity, [Node(*need) for need in held], Node(*wanted)) is fits


def test_many_claimers_share_out_every_search_once(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    ids = {submit() for _ in range(20)}
    with ThreadPoolExecutor(8) as pool:
        claimed = [lease for lease in pool.map(lambda _: claim(), range(24)) if lease]
    assert len(claimed) == len(ids)
    assert {lease.search_id for lease in claimed} == ids


def test_renewing_says_whether_the_user_wants_it_cancelled(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    assert lease is not None
    with transaction(engine) as session:
        orders = leases.renew(session, lease, duration=MINUTE)
        assert (orders.cancel, orders.halt, orders.seconds_left) == (False, False, None)
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
    with transaction(engine) as session:
        assert leases.renew(session, lease, duration=MINUTE).cancel


def test_a_stale_token_opens_nothing(engine: Engine, submit: Submit, claim: Claim) -> None:
    submit()
    lease = claim()
    assert lease is not None
    stale = Lease(lease.search_id, uuid4(), lease.attempt)
    with pytest.raises(LeaseLostError), transaction(engine) as session:
        leases.renew(session, stale, duration=MINUTE)
    with pytest.raises(LeaseLostError), transaction(engine) as session:
        leases.guard(session, stale)


def test_an_expired_lease_is_taken_back_and_its_holder_shut_out(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    late = claim(duration=timedelta(0))
    assert late is not None
    with transaction(engine) as session:
        assert leases.expire(session, max_failures=3) == [search_id]
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert (search.status, search.reason) == ("queued", Reason.LEASE_EXPIRED)
        assert search.failures == 1
    assert claim() is None  # it waits a moment before it is tried again
    forget_pauses(engine)
    again = claim()
    assert again is not None
    assert again.attempt == 2
    with pytest.raises(LeaseLostError), transaction(engine) as session:
        leases.guard(session, late)


def test_a_live_lease_is_left_alone(engine: Engine, submit: Submit, claim: Claim) -> None:
    submit()
    claim()
    with transaction(engine) as session:
        assert leases.expire(session, max_failures=3) == []


def test_a_search_that_keeps_crashing_fails(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    for _ in range(3):
        assert status_of(engine, search_id) == SearchStatus.QUEUED
        forget_pauses(engine)
        lease = claim()
        assert lease is not None
        with transaction(engine) as session:
            leases.give_back(
                session, lease, reason=Reason.RUNNER_CRASHED, message="It died.", max_failures=2
            )
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert (search.status, search.reason) == ("failed", Reason.ATTEMPTS_EXHAUSTED)
        assert "It died." in search.message
        assert {trial.status for trial in searches.trials(session, search_id)} == {"failed"}


@pytest.mark.parametrize("reason", sorted(UNCOUNTED))
def test_what_is_not_the_searchs_doing_never_fails_it(
    engine: Engine, submit: Submit, claim: Claim, reason: Reason
) -> None:
    search_id = submit()
    for _ in range(5):
        lease = claim()
        assert lease is not None
        with transaction(engine) as session:
            leases.give_back(session, lease, reason=reason, message="Stopping.", max_failures=0)
    assert status_of(engine, search_id) == SearchStatus.QUEUED


def test_a_lost_search_that_was_to_be_cancelled_is_cancelled(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    assert lease is not None
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
        leases.renew(session, lease, duration=timedelta(0))
    with transaction(engine) as session:
        leases.expire(session, max_failures=3)
    assert status_of(engine, search_id) == SearchStatus.CANCELLED


def test_a_custom_resource_is_had_or_the_search_is_passed_over(
    submit: Submit, claim: Claim
) -> None:
    first = submit(resources={"custom": {"a100": 1}}, priority=10)
    second = submit(resources={"custom": {"a100": 1, "scratch": 0.5}}, priority=5)
    plain = submit()
    nodes = Node(cpus=1), Node(cpus=1, custom={"a100": 2})
    claimed = [claim(Capacity(nodes)) for _ in range(3)]
    assert [lease and lease.search_id for lease in claimed] == [first, plain, None]
    bigger = Node(cpus=1, custom={"a100": 1.0, "scratch": 0.5})
    lease = claim(Capacity((*nodes, bigger)))
    assert lease is not None
    assert lease.search_id == second


def test_ten_tenths_of_a_gpu_are_one_gpu(submit: Submit, claim: Claim) -> None:
    for _ in range(11):
        submit(resources={"gpus": 0.1})
    one_gpu = Capacity((Node(cpus=100, gpus=1),))
    claimed = [claim(one_gpu) for _ in range(11)]
    assert [lease is not None for lease in claimed] == [True] * 10 + [False]


def test_a_search_whose_nodes_are_gone_keeps_nobody_else_from_its_room(
    submit: Submit, claim: Claim
) -> None:
    submit(resources={"cpus": 1, "gpus": 1}, priority=10)
    submit()
    submit()
    assert claim(Capacity((Node(cpus=1, gpus=1),))) is not None
    without = Capacity((Node(cpus=1),))
    assert claim(without) is not None
    assert claim(without) is None
