"""The thread that keeps a lease and hears what its user wants."""

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine

from store import leases, verbs
from store.leases import Capacity, Lease, Node
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record, wait_until
from workers.lease_keeper import LeaseKeeper, Verdict


class Verdicts:
    """Remembers the one verdict of a keeper."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.verdict: Verdict | None = None

    def __call__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.came.set()


def claim(engine: Engine, duration: timedelta) -> Lease:
    with transaction(engine) as session:
        lease = leases.claim(session, Capacity((Node(cpus=8),)), holder="test", duration=duration)
    assert lease is not None
    return lease


def test_it_renews_and_hears_a_cancel_at_once(
    engine: Engine,
    database_url: str,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    search_id = submit()
    hour = timedelta(hours=1)
    lease = claim(engine, timedelta(seconds=1))
    expires = record(search_id).search.lease_expires_at
    verdicts = Verdicts()
    keeper = LeaseKeeper(engine, database_url, lease, hour, verdicts)
    keeper.start()
    wait_until(lambda: record(search_id).search.lease_expires_at != expires)
    assert not verdicts.came.is_set()
    # A third of an hour would pass before the next renewal: the notification wakes it.
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
    assert verdicts.came.wait(60)
    assert verdicts.verdict is Verdict.CANCELLED


def test_it_says_when_the_lease_is_lost(
    engine: Engine, database_url: str, submit: Callable[..., UUID]
) -> None:
    submit()
    lease = claim(engine, timedelta(minutes=1))
    with transaction(engine) as session:
        leases.give_back(
            session, lease, reason=Reason.RUNNER_CRASHED, message="It died.", max_failures=3
        )
    verdicts = Verdicts()
    LeaseKeeper(engine, database_url, lease, timedelta(minutes=1), verdicts).start()
    assert verdicts.came.wait(60)
    assert verdicts.verdict is Verdict.LOST


def test_it_gives_up_when_it_could_not_renew_for_a_whole_lease(
    engine: Engine, submit: Callable[..., UUID]
) -> None:
    submit()
    lease = claim(engine, timedelta(seconds=1))
    verdicts = Verdicts()
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=1"
    LeaseKeeper(engine, nowhere, lease, timedelta(seconds=1), verdicts).start()
    assert verdicts.came.wait(60)
    assert verdicts.verdict is Verdict.LOST


def test_a_database_that_went_silent_does_not_keep_it_from_giving_up(
    engine: Engine, submit: Callable[..., UUID]
) -> None:
    submit()
    lease = claim(engine, timedelta(seconds=1))
    verdicts = Verdicts()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://u@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=60"
        LeaseKeeper(engine, url, lease, timedelta(seconds=1), verdicts).start()
        assert verdicts.came.wait(30)
    assert verdicts.verdict is Verdict.LOST
