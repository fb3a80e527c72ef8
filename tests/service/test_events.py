"""The event log as pages and as live streams, under a real uvicorn."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import psycopg
import pytest

from service.caller import Caller
from service.database import Database
from service.events.feed import EventFeed
from service.events.stream import Batch, stream
from service.jobs.submissions import Submissions
from service.settings import ServiceSettings
from service.wiring import Wiring
from store.leases import Lease
from store.notifications import plain_url
from store.sessions import make_async_engine
from tests.conftest import KEY
from tests.service.conftest import Api, Worker, client, serving

LIVE = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Sent:
    """An event as it came over the wire."""

    number: int
    kind: str
    data: dict[str, Any]


async def read(response: httpx2.Response) -> AsyncIterator[Sent]:
    """The events of a stream, comments left out."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Sent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


async def follow(address: str, search_id: str, **headers: str) -> list[Sent]:
    """All events of a stream until it ends by itself."""
    async with (
        client(address) as http,
        http.stream("GET", path(search_id), headers=LIVE | headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in read(response)]


def path(search_id: str) -> str:
    return f"/v1/searches/{search_id}/events"


# Polling is off: what arrives, arrives because PostgreSQL notified.
@pytest.fixture
def address(database_url: str) -> Iterator[str]:
    with serving(database_url, stream_poll_seconds=600) as address:
        yield address


def test_a_page_is_a_part_of_the_log(api: Api, worker: Worker) -> None:
    search_id = worker.submit()
    worker.run_to_the_end()
    whole = api.get(path(search_id)).json()
    numbers = [event["number"] for event in whole["items"]]
    assert numbers == list(range(1, whole["last"] + 1))
    page = api.get(f"{path(search_id)}?after=2&limit=3").json()
    assert page == {"items": whole["items"][2:5], "last": whole["last"]}
    beyond = api.get(f"{path(search_id)}?after={2**63 - 1}").json()
    assert beyond == {"items": [], "last": whole["last"]}
    assert api.get(f"{path(search_id)}?after={2**63}").status_code == 422
    assert api.get(f"{path(search_id)}?after=-1").status_code == 422
    first_epoch = next(event for event in whole["items"] if event["kind"] == "trial.epoch")
    assert first_epoch["data"]["metrics"]["train_loss"] is None


def test_an_ended_search_streams_its_log_and_ends(address: str, api: Api, worker: Worker) -> None:
    search_id = worker.submit()
    worker.run_to_the_end()
    page = api.get(path(search_id)).json()["items"]
    events = asyncio.run(follow(address, search_id))
    assert [event.data for event in events] == page
    assert [(event.number, event.kind) for event in events] == [
        (item["number"], item["kind"]) for item in page
    ]
    assert events[-1].kind == "search.succeeded"


def test_a_stream_goes_on_where_it_broke(address: str, worker: Worker) -> None:
    search_id = worker.submit()
    worker.run_to_the_end()

    async def resume() -> None:
        whole = await follow(address, search_id)
        assert await follow(address, search_id, **{"Last-Event-ID": "3"}) == whole[3:]
        async with client(address) as http:
            by_query = await http.get(f"{path(search_id)}?after=3", headers=LIVE)
            assert by_query.text.count("\nid: ") == len(whole) - 3
            # Nothing is left: a browser must not come back, others get an empty stream.
            last = {"Last-Event-ID": str(whole[-1].number)}
            assert (await http.get(path(search_id), headers=LIVE | last)).status_code == 204
            done = await http.get(f"{path(search_id)}?after={whole[-1].number}", headers=LIVE)
            assert done.status_code == 200
            assert "id: " not in done.text

    asyncio.run(resume())


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "²", "9" * 30])
def test_a_foreign_last_event_id_is_refused(offline: Api, number: str) -> None:
    search_id = "01979d3c-6f5e-7a31-9c53-5f2f0c1d8e4b"
    headers = {**LIVE, "Last-Event-ID": number.encode()}
    answer = offline.get(path(search_id), headers=headers)
    assert answer.status_code == 422
    assert "Last-Event-ID" in answer.json()["detail"]


def test_events_arrive_as_they_are_notified(address: str, worker: Worker) -> None:
    search_id = worker.submit()

    async def live() -> None:
        async with (
            client(address) as http,
            http.stream("GET", path(search_id), headers=LIVE) as response,
        ):
            events = read(response)
            assert (await anext(events)).kind == "search.queued"
            lease = await asyncio.to_thread(worker.claim)
            assert (await anext(events)).kind == "search.running"
            started = time.monotonic()
            await asyncio.to_thread(worker.epoch, lease, 1)
            event = await anext(events)
            assert (event.kind, event.data["data"]["epoch"]) == ("trial.epoch", 1)
            assert time.monotonic() - started < 5
            await asyncio.to_thread(_end, worker, lease)
            rest = [event.kind async for event in events]
            assert rest == [
                "search.best",
                "trial.succeeded",
                "trial.succeeded",
                "search.succeeded",
            ]

    asyncio.run(live())


def test_what_happens_before_a_stream_subscribes_is_not_missed(
    database_url: str, worker: Worker
) -> None:
    search_id = UUID(worker.submit())
    settings = ServiceSettings(stream_poll_seconds=600, stream_ping_seconds=600)

    async def watch() -> None:
        engine = make_async_engine(database_url)
        # Nothing listens, and the first read came before the event: nobody will ever ring.
        database = Database(engine)
        wiring = Wiring(settings, database, EventFeed(database_url), Submissions(database))
        caller = Caller(wiring.database, KEY)
        lines = stream(wiring, caller, search_id, 0, Batch((), is_last=False))
        async with asyncio.timeout(10):
            assert (await anext(lines)).startswith(b":")
            assert b"event: search.queued" in await anext(lines)
        await lines.aclose()
        await engine.dispose()

    asyncio.run(watch())


def test_many_streams_see_every_event_once_while_writers_race(address: str, worker: Worker) -> None:
    searches = [worker.submit(), worker.submit()]
    held = [worker.claim(), worker.claim()]

    def run(lease: Lease, trial: int) -> None:
        for epoch in (1, 2, 3):
            worker.epoch(lease, epoch, trial)

    async def watch() -> list[list[Sent]]:
        streams = [
            asyncio.create_task(follow(address, search_id))
            for search_id in searches
            for _ in range(12)
        ]
        writers = [asyncio.to_thread(run, lease, trial) for lease in held for trial in (0, 1)]
        await asyncio.gather(*writers)
        await asyncio.gather(*(asyncio.to_thread(_end, worker, lease) for lease in held))
        return await asyncio.gather(*streams)

    streams = asyncio.run(watch())
    for events in streams:
        assert [event.number for event in events] == list(range(1, 15))
        assert [event.kind for event in events].count("trial.epoch") == 6
    assert all(events == streams[0] for events in streams[:12])
    assert all(events == streams[12] for events in streams[12:])


def test_open_streams_hold_no_database_connection(
    database_url: str, worker: Worker, api: Api
) -> None:
    search_id = worker.submit()

    async def watch(address: str) -> None:
        streams = [asyncio.create_task(follow(address, search_id)) for _ in range(10)]
        await _until(lambda: _num_streams(database_url) == 1)
        # With a pool of two connections, ten open streams leave room for a request.
        async with client(address) as http:
            assert (await http.get(f"/v1/searches/{search_id}")).status_code == 200
            assert (await http.post(f"/v1/searches/{search_id}/cancel")).status_code == 200
        for events in await asyncio.gather(*streams):
            assert [event.kind for event in events] == ["search.queued", "search.cancelled"]

    with serving(database_url, stream_poll_seconds=600, database_connections=1) as address:
        asyncio.run(watch(address))


def test_streams_outlive_the_loss_of_every_connection(database_url: str, worker: Worker) -> None:
    search_id = worker.submit()

    async def watch(address: str) -> None:
        async with (
            client(address) as http,
            http.stream("GET", path(search_id), headers=LIVE) as response,
        ):
            events = read(response)
            assert (await anext(events)).kind == "search.queued"
            _terminate_all(database_url)
            lease = await asyncio.to_thread(worker.claim)
            assert (await anext(events)).kind == "search.running"
            await _until(lambda: _num_streams(database_url) == 1)
            await asyncio.to_thread(worker.epoch, lease, 1)
            assert (await anext(events)).kind == "trial.epoch"

    with serving(database_url, stream_poll_seconds=600) as address:
        asyncio.run(watch(address))


def test_without_notifications_a_stream_polls(database_url: str, worker: Worker) -> None:
    search_id = worker.submit()

    async def watch(address: str) -> None:
        async with (
            client(address) as http,
            http.stream("GET", path(search_id), headers=LIVE) as response,
        ):
            events = read(response)
            assert (await anext(events)).kind == "search.queued"
            with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
                # As if the notification got lost: the row without pg_notify.
                connection.execute(
                    "UPDATE searches SET last_event = 2; "
                    "INSERT INTO events (search_id, number, kind, data) "
                    "SELECT id, 2, 'silent', '{}' FROM searches"
                )
            assert (await anext(events)).kind == "silent"

    with serving(database_url, stream_poll_seconds=0.1) as address:
        asyncio.run(watch(address))


def test_a_silent_stream_sends_comments(database_url: str, worker: Worker) -> None:
    search_id = worker.submit()

    async def watch(address: str) -> None:
        async with (
            client(address) as http,
            http.stream("GET", path(search_id), headers=LIVE) as response,
        ):
            num_pings = 0
            async for line in response.aiter_lines():
                num_pings += line.startswith(": ping")
                if num_pings == 2:
                    return

    with serving(database_url, stream_poll_seconds=600, stream_ping_seconds=0.1) as address:
        asyncio.run(watch(address))


def test_a_server_that_stops_ends_its_streams(database_url: str, worker: Worker) -> None:
    search_id = worker.submit()
    seen: list[str] = []

    async def watch() -> None:
        async with (
            client(address) as http,
            http.stream("GET", path(search_id), headers=LIVE) as response,
        ):
            seen.extend([event.kind async for event in _noting(read(response), begun)])

    begun = threading.Event()
    with serving(database_url, stream_poll_seconds=600) as address:
        reader = threading.Thread(target=lambda: asyncio.run(watch()))
        reader.start()
        assert begun.wait(20)
        started = time.monotonic()
    reader.join(timeout=10)
    assert time.monotonic() - started < 4
    assert seen == ["search.queued"]


async def _noting(events: AsyncIterator[Sent], begun: threading.Event) -> AsyncIterator[Sent]:
    async for event in events:
        begun.set()
        yield event


def _end(worker: Worker, lease: Lease) -> None:
    worker.succeed(lease, 0)
    worker.succeed(lease, 1)
    worker.finish(lease)


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _num_streams(url: str) -> int:
    """Connections that listen, however many streams there are."""
    with psycopg.connect(plain_url(url)) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _terminate_all(url: str) -> None:
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
