"""Claiming and keeping searches, on a real PostgreSQL."""

from datetime import timedelta

from sqlalchemy import Engine

from search_core.spec import SearchSpec
from store import leases, searches
from store.leases import Capacity, Node
from store.sessions import transaction

SPEC = SearchSpec.model_validate({"space": {"kind": "darts"}})
ONE_NODE = Capacity((Node(cpus=2),))
MINUTE = timedelta(minutes=1)


def test_a_claim_takes_the_oldest_of_the_highest_priority(engine: Engine) -> None:
    with transaction(engine) as session:
        searches.submit(session, SPEC)
        first = searches.submit(session, SPEC.model_copy(update={"priority": 5})).id
        searches.submit(session, SPEC.model_copy(update={"priority": 5}))
    with transaction(engine) as session:
        lease = leases.claim(session, ONE_NODE, holder="test", duration=MINUTE)
    assert lease is not None
    assert lease.search_id == first
