"""From an event to a receiver: real API processes, real sockets, and what breaks in between."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, func, select, update

from service.webhooks.sending import encode, sign
from store.models import Delivery, Webhook
from store.sessions import transaction
from tests.conftest import BEARER
from tests.service.conftest import Worker, serving
from tests.service.receivers import Receiver, receiving
from tests.service.test_events import _terminate_all as terminate_all
from tests.service.test_main import address_of, process
from tests.store.conftest import wait_until

FAST = {"webhooks_allow_private": True, "webhooks_poll_seconds": 0.05}


class Hook:
    """A webhook on a server, as its owner uses it."""

    def __init__(self, address: str, url: str, *kinds: str) -> None:
        self._http = httpx2.Client(base_url=address, headers=BEARER, timeout=20)
        body = {"url": url, "kinds": list(kinds or ["*"])}
        answer = self._http.post("/v1/webhooks", json=body)
        assert answer.status_code == 201, answer.text
        self.secret = answer.json()["secret"]
        self.path = f"/v1/webhooks/{answer.json()['id']}"

    def close(self) -> None:
        self._http.close()

    def post(self, path: str) -> Any:
        return self._http.post(self.path + path).json()

    def log(self) -> list[dict[str, Any]]:
        """Oldest first."""
        answer = self._http.get(f"{self.path}/deliveries?limit=200")
        return list(reversed(answer.json()["items"]))


@pytest.fixture
def hooks() -> Any:
    """Makes webhooks, and closes their connections at the end."""
    made: list[Hook] = []

    def hook(*arguments: str) -> Hook:
        made.append(Hook(*arguments))
        return made[-1]

    yield hook
    for each in made:
        each.close()


MakeHook = Callable[..., Hook]


def test_a_receiver_is_told_of_everything_once_in_order_and_signed(
    database_url: str, worker: Worker, hooks: MakeHook
) -> None:
    with receiving() as receiver, serving(database_url, **FAST) as address:
        hook = hooks(address, receiver.url)
        search_id = worker.submit()
        worker.run_to_the_end()
        wait_until(lambda: receiver.kinds()[-1:] == ["search.succeeded"])
        log = httpx2.get(f"{address}/v1/searches/{search_id}/events", headers=BEARER).json()[
            "items"
        ]
        told = [request.json for request in receiver.received]
        assert [{name: each[name] for name in log[0]} for each in told] == log
        assert told[-1]["search"]["status"] == "succeeded"
        assert {each["search"]["id"] for each in told} == {search_id}
        for request in receiver.received:
            code = sign(hook.secret, request.headers["Dartboard-Timestamp"], request.body)
            assert request.headers["Dartboard-Signature"] == f"v1={code}"
            assert abs(int(request.headers["Dartboard-Timestamp"]) - time.time()) < 60
            assert encode(request.json) == request.body
        wait_until(lambda: {each["status"] for each in hook.log()} == {"delivered"})
        ids = [each["id"] for each in hook.log()]
        assert ids == [request.headers["Dartboard-Delivery"] for request in receiver.received]


def test_it_is_told_at_once(database_url: str, worker: Worker, hooks: MakeHook) -> None:
    options = {**FAST, "webhooks_poll_seconds": 600}
    with receiving() as receiver, serving(database_url, **options) as address:
        hooks(address, receiver.url)
        # Without polling, what arrives arrives because PostgreSQL notified.
        wait_until(lambda: worker.submit() and receiver.received)


def test_a_failed_attempt_is_repeated_with_the_same_body(
    database_url: str, worker: Worker, engine: Engine, hooks: MakeHook
) -> None:
    with receiving() as receiver, serving(database_url, **FAST) as address:
        hook = hooks(address, receiver.url, "search.queued")
        receiver.answer = lambda _: (500 if len(receiver.received) < 3 else 200, {})
        worker.submit()
        for number in (1, 2):
            wait_until(lambda: [e["response_status"] for e in hook.log()] == [500])
            wait_until(lambda: len(receiver.received) == number)  # noqa: B023
            wait_until(lambda: _move_up(engine) == 1)
        wait_until(lambda: [each["status"] for each in hook.log()] == ["delivered"])
        (entry,) = hook.log()
        assert (entry["attempts"], entry["response_status"], entry["error"]) == (3, 200, "")
    assert len({request.body for request in receiver.received}) == 1
    assert len({request.headers["Dartboard-Delivery"] for request in receiver.received}) == 1


def test_a_ping_and_a_redelivery(database_url: str, hooks: MakeHook) -> None:
    with receiving() as receiver, serving(database_url, **FAST) as address:
        hook = hooks(address, receiver.url, "search.succeeded")
        ping = hook.post("/test")
        wait_until(lambda: [each["status"] for each in hook.log()] == ["delivered"])
        assert receiver.received[0].headers["Dartboard-Event"] == "ping"
        assert receiver.received[0].json["data"]["webhook"] == hook.path.rpartition("/")[2]
        assert hook.post(f"/deliveries/{ping['id']}/redeliver")["status"] == "pending"
        wait_until(lambda: len(receiver.received) == 2)
        assert receiver.received[0].body == receiver.received[1].body
        wait_until(lambda: [each["status"] for each in hook.log()] == ["delivered"])


def test_a_private_address_gets_nothing_without_the_setting(
    database_url: str, worker: Worker, hooks: MakeHook
) -> None:
    with receiving() as receiver:
        with serving(database_url, webhooks_allow_private=True, webhooks_senders=0) as address:
            hooks(address, receiver.url, "search.queued")
        with serving(database_url, webhooks_poll_seconds=0.05) as address:
            worker.submit()
            http = httpx2.Client(base_url=address, headers=BEARER)
            (made,) = http.get("/v1/webhooks").json()["items"]

            def errors() -> list[str]:
                log = http.get(f"/v1/webhooks/{made['id']}/deliveries").json()["items"]
                return [each["error"] for each in log if each["attempts"]]

            wait_until(errors)
            assert "no public address" in errors()[0]
            http.close()
        assert receiver.received == []


def test_a_receiver_that_hangs_does_not_hold_up_others(
    database_url: str, worker: Worker, hooks: MakeHook
) -> None:
    release = threading.Event()
    with receiving() as slow, receiving() as fine:
        slow.answer = lambda _: ((release.wait(20) and 200) or 500, {})
        with serving(database_url, **FAST, webhooks_senders=2) as address:
            hooks(address, slow.url)
            hooks(address, fine.url)
            worker.submit()
            worker.run_to_the_end()
            wait_until(lambda: fine.kinds()[-1:] == ["search.succeeded"])
            # One message of the search at a time, whatever it takes.
            assert slow.kinds() == ["search.queued"]
            release.set()


def test_two_processes_share_the_work_and_a_killed_one_loses_none(
    database_url: str, worker: Worker, engine: Engine, tmp_path: Path, hooks: MakeHook
) -> None:
    hold, held = threading.Event(), threading.Event()

    def answer(_: Any) -> tuple[int, dict[str, str]]:
        if len(receiver.received) > 20 and not hold.is_set():
            held.set()
            hold.wait(20)
        return 200, {}

    variables = {
        "DATABASE_URL": database_url, "PORT": "0",
        "WEBHOOKS_ALLOW_PRIVATE": "1", "WEBHOOKS_POLL_SECONDS": "0.05",
    }  # fmt: skip
    with (
        receiving() as receiver,
        process(**variables, HOME=str(tmp_path / "a")) as one,
        process(**variables, HOME=str(tmp_path / "b")) as other,
    ):
        receiver.answer = answer
        address_of(other)
        hooks(address_of(one), receiver.url)
        for _ in range(5):
            worker.submit()
        for _ in range(5):
            worker.run_to_the_end()
        wait_until(held.is_set)
        # It was sending, and nobody will ever say what came of that.
        other.kill()
        _let_leases_run_out(engine)
        hold.set()
        wait_until(lambda: _num_open(engine) == 0)
    counts = Counter(request.headers["Dartboard-Delivery"] for request in receiver.received)
    events = {(r.json["search"]["id"], r.json["number"]) for r in receiver.received}
    # Every event, at least once: as many as the five logs have.
    assert len(events) == len(counts) == 5 * 12
    assert max(counts.values()) <= 2
    _check_order(receiver)


def _check_order(receiver: Receiver) -> None:
    """What was received first of a search is in its order."""
    last: Counter[str] = Counter()
    for request in receiver.received:
        search_id, number = request.json["search"]["id"], request.json["number"]
        assert number <= last[search_id] + 1
        last[search_id] = max(last[search_id], number)


def test_a_database_that_was_away_is_asked_again(
    database_url: str, worker: Worker, hooks: MakeHook
) -> None:
    with receiving() as receiver, serving(database_url, **FAST) as address:
        hooks(address, receiver.url)
        terminate_all(database_url)
        worker.submit()
        wait_until(lambda: receiver.kinds() == ["search.queued"])


def test_failures_and_the_end_are_logged(
    database_url: str, worker: Worker, engine: Engine, hooks: MakeHook,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with receiving() as receiver, serving(database_url, **FAST) as address:
        # The server's own lines go to its handlers, and not on to pytest's.
        logging.getLogger("service").addHandler(caplog.handler)
        receiver.answer = lambda _: (500, {})
        hook = hooks(address, receiver.url, "search.queued")
        worker.submit()
        wait_until(lambda: [each["response_status"] for each in hook.log()] == [500])
        with transaction(engine) as session:
            session.execute(
                update(Webhook).values(failing_since=Webhook.failing_since - timedelta(days=4))
            )
        _move_up(engine)
        wait_until(lambda: [each["status"] for each in hook.log()] == ["failed"])
        wait_until(lambda: "is disabled" in caplog.text)
        logging.getLogger("service").removeHandler(caplog.handler)
    assert "attempt 1: It answered with status 500." in caplog.text
    assert hook.secret not in caplog.text


def _move_up(engine: Engine) -> int:
    """Makes what waits for its next attempt due now; returns how many there were."""
    with transaction(engine) as session:
        moved = session.scalars(
            update(Delivery)
            .where(Delivery.status == "pending", Delivery.leased_until.is_(None))
            .values(next_attempt_at=Delivery.created_at)
            .returning(Delivery.id)
        )
        return len(moved.all())


def _let_leases_run_out(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(
            update(Delivery)
            .where(Delivery.leased_until.is_not(None))
            .values(leased_until=Delivery.created_at)
        )


def _num_open(engine: Engine) -> int:
    with transaction(engine) as session:
        statement = select(func.count()).where(Delivery.status == "pending")
        return session.scalars(statement.select_from(Delivery)).one()
