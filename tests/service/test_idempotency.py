"""`Idempotency-Key`: one row and one answer, however often and at once a create is sent."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import Engine, func, select, update

from store import idempotency
from store.models import Base, IdempotencyKey, Key, Search
from store.notifications import plain_url
from store.sessions import transaction
from store.states import Role
from tests.conftest import BEARER
from tests.service.conftest import SPEC, Api, Worker, serving
from tests.service.test_keys import key_of as key_of
from tests.service.test_main import address_of, process
from tests.store.conftest import wait_until

As = Callable[..., dict[str, str]]
NAME = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
PROBLEM = "application/problem+json"

CREATES: dict[str, tuple[Any, type[Base]]] = {
    "/v1/searches": (SPEC, Search),
    "/v1/trainings": ({"architecture": "DARTS_V2"}, Search),
    "/v1/searches:batch": ({"searches": [SPEC]}, Search),
    "/v1/keys": ({"owner": "ana", "role": "member"}, Key),
}


def count(engine: Engine, table: type[Base]) -> int:
    with transaction(engine) as session:
        return session.scalars(select(func.count()).select_from(table)).one()


@pytest.mark.parametrize("path", CREATES)
def test_a_create_sent_again_is_answered_the_same(api: Api, engine: Engine, path: str) -> None:
    body, table = CREATES[path]
    before = count(engine, table)
    first = api.post(path, json=body, headers=NAME)
    assert first.status_code == 201, first.text
    assert "idempotency-replayed" not in first.headers
    again = api.post(path, json=body, headers=NAME)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers.get("location") == first.headers.get("location")
    assert again.headers["idempotency-replayed"] == "true"
    assert count(engine, table) == before + 1
    # Without a name, or with another one, it is a new one.
    assert api.post(path, json=body).json() != first.json()
    assert api.post(path, json=body, headers={"Idempotency-Key": "2"}).json() != first.json()
    assert count(engine, table) == before + 3


@pytest.mark.parametrize("path", CREATES)
def test_another_request_under_the_name_is_a_conflict(api: Api, engine: Engine, path: str) -> None:
    body, table = CREATES[path]
    assert api.post(path, json=body, headers=NAME).status_code == 201
    before = count(engine, table)
    other = {"searches": [SPEC, SPEC]} if "batch" in path else {**body, "name": "another"}
    answer = api.post(path, json=other, headers=NAME)
    assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
    assert answer.json()["type"] == "urn:dartboard:problem:idempotency-key-reused"
    assert "new key" in answer.json()["detail"]
    assert count(engine, table) == before


def test_the_answer_is_that_of_the_first_whatever_happened_since(api: Api, worker: Worker) -> None:
    first = api.post("/v1/searches", json=SPEC, headers=NAME)
    worker.run_to_the_end()
    again = api.post("/v1/searches", json=SPEC, headers=NAME)
    assert again.content == first.content
    assert api.get(first.headers["location"]).json()["status"] == "succeeded"


def test_a_name_is_its_owners(api: Api, key_of: As, engine: Engine) -> None:
    ana, ben = key_of("ana"), key_of("ben")
    made = [api.post("/v1/searches", json=SPEC, headers=who | NAME).json() for who in (ana, ben)]
    assert [search["owner"] for search in made] == ["ana", "ben"]
    # Another key of the same owner is the same owner.
    again = api.post("/v1/searches", json=SPEC, headers=key_of("ana") | NAME).json()
    assert again == made[0]
    viewer = key_of("ana", Role.VIEWER)
    assert api.post("/v1/searches", json=SPEC, headers=viewer | NAME).status_code == 403


def test_a_name_that_was_refused_is_free(api: Api) -> None:
    bad = {**SPEC, "space": {"kind": "darts", "channels": 0}}
    assert api.post("/v1/searches", json=bad, headers=NAME).status_code == 422
    assert api.post("/v1/searches", json=SPEC, headers=NAME).status_code == 201


def test_a_dry_run_takes_no_name(api: Api) -> None:
    dry = api.post("/v1/searches?dry_run=true", json=SPEC, headers=NAME)
    assert dry.status_code == 200
    assert api.post("/v1/searches", json=SPEC, headers=NAME).status_code == 201
    assert api.post("/v1/searches?dry_run=true", json=SPEC, headers=NAME).json() == dry.json()


def test_what_is_refused_by_now_has_its_answer_all_the_same(api: Api, worker: Worker) -> None:
    cuboid = {
        "space": {"kind": "hypercuboid", "axes": {"channels": [512, 1024]}, "levels": 4},
        "dataset": {"name": "cifar10"},
        "training": {"batch_size": 512},
    }
    first = api.post("/v1/searches", json=cuboid, headers=NAME)
    assert first.status_code == 201
    # The cluster's only node has less memory than that takes.
    worker.heartbeat(memory=2.0**30)
    assert api.post("/v1/searches", json=cuboid).status_code == 422
    again = api.post("/v1/searches", json=cuboid, headers=NAME)
    assert (again.status_code, again.content) == (201, first.content)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb", "é"])
def test_a_name_that_is_none_is_refused(offline: Api, name: str) -> None:
    headers = {"Idempotency-Key": name.encode()}
    answer = offline.post("/v1/searches", json=SPEC, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
    assert "'Idempotency-Key': must have 1 to 255 printable" in answer.json()["detail"]


def test_the_longest_name_is_one(api: Api) -> None:
    for _ in range(2):
        answer = api.post("/v1/searches", json=SPEC, headers={"Idempotency-Key": "~" * 255})
        assert answer.status_code == 201


def test_the_secret_of_a_key_is_told_again_and_never_kept(
    api: Api, key_of: As, engine: Engine
) -> None:
    body = {"role": "viewer"}
    ana = key_of("ana")
    first = api.post("/v1/keys", json=body, headers=ana | NAME)
    again = api.post("/v1/keys", json=body, headers=ana | NAME)
    assert again.content == first.content
    assert again.headers["cache-control"] == "no-store"
    secret = again.json()["key"]
    assert api.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()["owner"] == "ana"
    with transaction(engine) as session:
        kept = session.scalars(select(IdempotencyKey)).one()
        assert secret not in kept.answer
        assert '"key"' not in kept.answer
    # Whoever shows another key cannot find the secret again, and is told so, not another secret.
    other = api.post("/v1/keys", json=body, headers=key_of("ana") | NAME)
    assert (other.status_code, other.json()["title"]) == (
        409,
        "The key was used for another request",
    )


def test_names_are_forgotten_after_a_day(api: Api, engine: Engine) -> None:
    first = api.post("/v1/searches", json=SPEC, headers=NAME).json()
    with transaction(engine) as session:
        older = IdempotencyKey.created_at - timedelta(hours=24, seconds=1)
        session.execute(update(IdempotencyKey).values(created_at=older))
        idempotency.forget(session)
    second = api.post("/v1/searches", json=SPEC, headers=NAME)
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]


def _post_at_once(addresses: list[str], body: Any, num: int) -> list[httpx2.Response]:
    """Sends the same create from many clients at the same moment."""
    start = threading.Barrier(num)

    def post(number: int) -> httpx2.Response:
        address = addresses[number % len(addresses)]
        with httpx2.Client(base_url=address, headers=BEARER | NAME, timeout=60) as client:
            client.get("/healthz")
            start.wait()
            return client.post("/v1/searches", json=body)

    with ThreadPoolExecutor(num) as threads:
        return list(threads.map(post, range(num)))


def test_many_at_once_make_one(database_url: str, engine: Engine) -> None:
    with serving(database_url) as address:
        answers = _post_at_once([address], SPEC, 24)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count(None) == 1
    assert count(engine, Search) == 1


def test_many_at_once_over_two_processes_make_one(
    database_url: str, engine: Engine, tmp_path: Any
) -> None:
    variables = {"DATABASE_URL": database_url, "PORT": "0"}
    with (
        process(**variables, HOME=str(tmp_path / "a")) as one,
        process(**variables, HOME=str(tmp_path / "b")) as other,
    ):
        answers = _post_at_once([address_of(one), address_of(other)], SPEC, 24)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count(None) == 1
    assert count(engine, Search) == 1


def test_different_bodies_at_once_make_one_and_conflicts(database_url: str, engine: Engine) -> None:
    def post(number: int) -> int:
        body = {**SPEC, "name": f"number {number}"}
        return httpx2.post(
            f"{address}/v1/searches", json=body, headers=BEARER | NAME, timeout=60
        ).status_code

    with serving(database_url) as address, ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(post, range(8))) == [201, *[409] * 7]
    assert count(engine, Search) == 1


def test_one_that_is_cut_off_in_the_middle_leaves_the_work_to_the_next(
    database_url: str, engine: Engine
) -> None:
    with (
        serving(database_url) as one,
        serving(database_url) as other,
        ThreadPoolExecutor(2) as threads,
    ):

        def post(address: str) -> httpx2.Response:
            return httpx2.post(
                f"{address}/v1/searches", json=SPEC, headers=BEARER | NAME, timeout=60
            )

        with _locked(database_url, "trials"):
            first = threads.submit(post, one)
            # It has its name and its search, and waits to write the trials.
            wait_until(lambda: _waiting(database_url) == ["relation"])
            second = threads.submit(post, other)
            wait_until(lambda: _waiting(database_url) == ["relation", "transactionid"])
            _terminate(database_url, "relation")
            assert first.result().status_code == 503
        answer = second.result()
    assert answer.status_code == 201
    assert "idempotency-replayed" not in answer.headers
    assert count(engine, Search) == 1


@contextmanager
def _locked(url: str, table: str) -> Iterator[None]:
    """A table that nobody else reads or writes."""
    with psycopg.connect(plain_url(url)) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def _waiting(url: str) -> list[str]:
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT wait_event FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' ORDER BY 1"
        )
        return [row[0] for row in rows]


def _terminate(url: str, waits_for: str) -> None:
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = %s",
            [waits_for],
        )
