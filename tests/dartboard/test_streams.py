"""Following a search over connections that break."""

import threading
from collections.abc import Iterator

import pytest

from dartboard import Client, DartboardError, Event, NotFoundError, ServerUnreachableError
from tests.dartboard.conftest import GENOTYPES, SPEC, Served, Worker


def kinds(events: Iterator[Event]) -> list[str]:
    return [event.kind for event in events]


def test_following_an_ended_search_gives_all_and_ends(client: Client, worker: Worker) -> None:
    search = client.submit(SPEC)
    worker.run()
    events = list(client.follow(search.id))
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert events[0].kind == "search.queued"
    assert events[-1].kind == "search.succeeded"
    assert client.events(search.id).items == tuple(events)
    assert client.events(search.id, after=3, limit=2).items == tuple(events[3:5])
    assert list(client.follow(search.id, after=4)) == events[4:]
    assert list(client.follow(search.id, after=len(events))) == []


def test_following_from_the_queue_to_the_end(client: Client, worker: Worker) -> None:
    search = client.submit(SPEC)
    stream = client.follow(search.id)
    assert next(stream).kind == "search.queued"
    running = threading.Thread(target=worker.run)
    running.start()
    assert kinds(stream)[-1] == "search.succeeded"
    running.join()


def test_a_restart_of_the_server_loses_and_repeats_nothing(
    client: Client, worker: Worker, server: Served
) -> None:
    search = client.submit(SPEC)
    first, second = client.trials(search.id)
    told: list[DartboardError] = []
    stream = client.follow(search.id, on_trouble=told.append)
    lease = worker.claim()
    worker.train(lease, first.id, epochs=1, genotype=GENOTYPES[0])
    seen = [next(stream) for _ in range(3)]

    server.stop()
    worker.train(lease, second.id, epochs=2, genotype=GENOTYPES[1])
    worker.succeed(lease, second.id, GENOTYPES[1])
    worker.fail(lease, first.id)
    worker.finish(lease)
    later = threading.Timer(1.0, server.start)
    later.start()
    seen += stream
    later.join()
    assert told
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].kind == "search.succeeded"


def test_a_server_that_does_not_come_back_ends_the_patience(
    client: Client, worker: Worker, server: Served
) -> None:
    search = client.submit(SPEC)
    stream = client.follow(search.id, patience=0.2)
    next(stream)
    server.stop()
    with pytest.raises(ServerUnreachableError, match="dartboard up"):
        next(stream)


def test_waiting_survives_a_restart(client: Client, worker: Worker, server: Served) -> None:
    search = client.submit(SPEC)
    worker.run()
    server.stop()
    later = threading.Timer(0.8, server.start)
    later.start()
    assert client.wait(search.id, timeout=20).status == "succeeded"
    later.join()


def test_following_what_is_not_there(client: Client) -> None:
    with pytest.raises(NotFoundError):
        next(client.follow("01900000-0000-7000-8000-000000000000"))
