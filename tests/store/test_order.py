"""Whose turn it is: priorities, shares of the cluster, weights, quotas, age."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from store import endings, leases, owners, queue, recording, searches, verbs
from store.leases import Lease
from store.room import Capacity, Node
from store.sessions import transaction
from tests.store.conftest import GENOTYPE, MINUTE, PLENTY, spec

TWO_PLACES = Capacity((Node(cpus=2),))
GPUS = Capacity((Node(cpus=64, gpus=4), Node(cpus=64, gpus=4)))

Submit = Callable[..., UUID]
Claim = Callable[..., Lease | None]


@pytest.fixture
def of(engine: Engine) -> Submit:
    """Submits a search of an owner, who is made if need be."""

    def of(owner: str, **fields: Any) -> UUID:
        with transaction(engine) as session:
            owners.ensure(session, owner)
            return searches.submit(session, spec(**fields), owner=owner).id

    return of


def change(engine: Engine, owner: str, **changes: Any) -> None:
    with transaction(engine) as session:
        owners.ensure(session, owner)
        owners.change(session, owner, changes)


def claim_all(engine: Engine, capacity: Capacity = PLENTY, limit: int = 100) -> list[UUID]:
    with transaction(engine) as session:
        found = leases.claim_all(session, capacity, holder="x", duration=MINUTE, limit=limit)
    return [lease.search_id for lease in found]


def sign_on(engine: Engine, capacity: Capacity) -> None:
    with transaction(engine) as session:
        queue.heartbeat(session, "d", host="h", pid=1, capacity=capacity)


def why(engine: Engine, search_id: UUID) -> str:
    with transaction(engine) as session:
        found = queue.waiting(session, searches.get(session, search_id))
    assert found is not None
    return found.why


def test_owners_who_wait_take_turns(engine: Engine, of: Submit) -> None:
    ana = [of("ana") for _ in range(3)]
    ben = [of("ben") for _ in range(2)]
    assert claim_all(engine) == [ana[0], ben[0], ana[1], ben[1], ana[2]]


def test_a_batch_and_one_by_one_are_the_same(engine: Engine, of: Submit, claim: Claim) -> None:
    ids = {of(owner) for owner in ("ana", "ana", "ben", "ana", "ben", "eve")}
    with transaction(engine) as session:
        expected = leases.claim_all(session, PLENTY, holder="x", duration=MINUTE, limit=6)
        session.rollback()
    singly = [claim() for _ in ids]
    assert [lease and lease.search_id for lease in singly] == [
        lease.search_id for lease in expected
    ]


def test_who_holds_less_goes_first(engine: Engine, of: Submit) -> None:
    of("ana", trials={"seeds": [0, 1, 2]})
    assert len(claim_all(engine)) == 1
    first_of_ana = of("ana")
    ben = [of("ben") for _ in range(4)]
    # Three of ben's weigh as much as what ana runs; then age decides.
    assert claim_all(engine) == [*ben[:3], first_of_ana, ben[3]]


def test_a_weight_is_a_part(engine: Engine, of: Submit) -> None:
    change(engine, "ana", weight=2)
    ana, ben = [of("ana") for _ in range(4)], [of("ben") for _ in range(2)]
    assert claim_all(engine) == [ana[0], ben[0], ana[1], ana[2], ben[1], ana[3]]


def test_a_priority_goes_before_a_share(engine: Engine, of: Submit) -> None:
    of("ana", trials={"seeds": [0, 1, 2]})
    claim_all(engine)
    ben, urgent = of("ben"), of("ana", priority=1)
    assert claim_all(engine) == [urgent, ben]


def test_what_counts_is_the_larger_part_of_cpus_and_gpus(engine: Engine, of: Submit) -> None:
    of("ana", resources={"cpus": 16})  # an eighth of the CPUs
    of("ben", resources={"gpus": 2})  # a quarter of the GPUs
    claim_all(engine, GPUS)
    ben, ana = of("ben"), of("ana")
    assert claim_all(engine, GPUS) == [ana, ben]


def test_a_quota_of_searches_holds(engine: Engine, of: Submit) -> None:
    change(engine, "ana", max_running=1)
    ana, ben = [of("ana"), of("ana")], of("ben")
    assert claim_all(engine) == [ana[0], ben]
    assert claim_all(engine) == []
    sign_on(engine, PLENTY)
    assert why(engine, ana[1]) == "its owner ana runs 1 of at most 1 searches"
    change(engine, "ana", max_running=None)
    assert claim_all(engine) == [ana[1]]


def test_a_quota_of_gpus_lets_through_what_is_within_it(engine: Engine, of: Submit) -> None:
    change(engine, "ana", max_gpus=1.5)
    large = of("ana", resources={"gpus": 2})
    whole, half, third = (of("ana", resources={"gpus": gpus}) for gpus in (1, 0.5, 0.5))
    none = of("ana")
    assert claim_all(engine, GPUS) == [whole, half, none]
    sign_on(engine, GPUS)
    assert why(engine, large) == (
        "its owner ana holds 1.5 of at most 1.5 GPUs, and each of its trials needs 2"
    )
    assert "each of its trials needs 0.5" in why(engine, third)


def test_a_quota_of_gpus_limits_how_many_trials_run_at_once(
    engine: Engine, of: Submit, claim: Claim
) -> None:
    change(engine, "ana", max_gpus=2)
    search_id = of("ana", trials={"seeds": [0, 1, 2]}, resources={"gpus": 1})
    another = of("ana", resources={"gpus": 1})
    lease = claim(GPUS)
    assert lease is not None
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert (search.num_processes, search.max_live) == (3, 2)
        assert queue.overview(session).reserved_gpus == 2
    assert claim(GPUS) is None
    with transaction(engine) as session:
        for trial in list(recording.open_trials(session, lease))[:2]:
            recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
    second = claim(GPUS)
    assert second is not None
    assert second.search_id == another
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
        endings.cancelled(session, lease)
        assert searches.get(session, search_id).max_live is None


def test_what_waits_for_room_lets_nobody_past(engine: Engine, of: Submit) -> None:
    of("ana")
    claim_all(engine, TWO_PLACES)
    large, small = of("ben", resources={"cpus": 2}), of("ana")
    assert claim_all(engine, TWO_PLACES) == []
    sign_on(engine, TWO_PLACES)
    assert why(engine, large) == "the cluster is full"
    assert why(engine, small) == "1 is ahead of it"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    waiting=st.lists(
        st.tuples(
            st.sampled_from(["ana", "ben", "eve"]),
            st.integers(0, 1),
            st.integers(1, 3),
            st.sampled_from([0, 0.25, 1]),
        ),
        min_size=1,
        max_size=12,
    ),
    weights=st.fixed_dictionaries({"ana": st.sampled_from([1, 2, 3]), "ben": st.just(1)}),
    running=st.integers(0, 4),
)
def test_places_are_the_order_of_claims(
    engine: Engine,
    waiting: list[tuple[str, int, int, float]],
    weights: dict[str, float],
    running: int,
) -> None:
    room = Capacity((Node(cpus=1000, gpus=1000),))
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE searches CASCADE")
    for owner, weight in weights.items():
        change(engine, owner, weight=weight)
    change(engine, "eve")
    for number, (owner, priority, seeds, gpus) in enumerate(waiting):
        fields = {
            "priority": priority,
            "trials": {"seeds": list(range(seeds))},
            "resources": {"gpus": gpus},
        }
        with transaction(engine) as session:
            searches.submit(session, spec(**fields), owner=owner)
        if number < running:
            claim_all(engine, room)
    sign_on(engine, room)
    with transaction(engine) as session:
        lines = queue.overview(session).waiting
    assert [line.position for line in lines] == list(range(1, len(lines) + 1))
    assert [line.search.id for line in lines] == claim_all(engine, room)
