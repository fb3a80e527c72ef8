"""Following a search over connections that break."""

import threading
from collections.abc import Iterator

import pytest

from dartboard import Client, DartboardError, Event, NotFoundError, ServerUnreachableError
from store.leases import Lease
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
    stream = client.follow(search.id)
    lease = worker.claim()
    worker.train(lease, first.id, epochs=1, genotype=GENOTYPES[0])
    seen = [next(stream) for _ in range(3)]

    server.stop()
    finish(worker, lease, second.id)
    told: list[DartboardError] = []
    later = threading.Timer(0.3, server.start)
    later.start()
    seen += client.follow(search.id, seen[-1].number, on_trouble=told.append)
    later.join()
    assert told
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].kind == "search.succeeded"

    # The stream that was open all along goes on where it was as well.
    rest = [event.number for event in stream]
    assert rest == list(range(4, len(seen) + 1))


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


def finish(worker: Worker, lease: Lease, trial_id: object) -> None:
    from uuid import UUID

    assert isinstance(trial_id, UUID)
    worker.train(lease, trial_id, epochs=2, genotype=GENOTYPES[1])
    worker.succeed(lease, trial_id, GENOTYPES[1])
    worker.finish(lease)
