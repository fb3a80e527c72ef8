"""Following a search over connections that break."""

import socket
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from dartboard import Client, DartboardError, Event, NotFoundError, ServerUnreachableError
from tests.conftest import KEY
from tests.dartboard.conftest import GENOTYPES, SPEC, Served, Worker
from tests.service.test_main import address_of, process
from tests.store.conftest import wait_until


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


def test_an_api_process_that_is_killed_and_started_again_loses_and_repeats_nothing(
    database_url: str, worker: Worker, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"DATABASE_URL": database_url, "PORT": str(port), "HOME": str(tmp_path)}
    told: list[DartboardError] = []
    seen: list[Event] = []
    with Client(f"http://127.0.0.1:{port}", key=KEY) as client:
        with process(**variables) as api:
            address_of(api)
            search = client.submit(SPEC)
            first, second = (trial.id for trial in search.trials)
            stream = client.follow(search.id, on_trouble=told.append)
            # The list takes each as it comes: `extend` would not show them until the end.
            follower = threading.Thread(target=lambda: deque(map(seen.append, stream), maxlen=0))
            follower.start()
            lease = worker.claim()
            worker.train(lease, first, epochs=1, genotype=GENOTYPES[0])
            wait_until(lambda: "trial.epoch" in [event.kind for event in seen])
            api.kill()
        # Nobody tells it of these while they happen.
        worker.train(lease, second, epochs=1, genotype=GENOTYPES[1])
        worker.succeed(lease, first, GENOTYPES[0])
        with process(**variables) as api:
            address_of(api)
            wait_until(lambda: seen[-1].kind == "trial.succeeded")
            # Killed between the event and its way to the client, perhaps: it is told again or not.
            killing = threading.Timer(0.01, api.kill)
            killing.start()
            worker.train(lease, second, epochs=2, genotype=GENOTYPES[1])
            killing.join()
        worker.succeed(lease, second, GENOTYPES[1])
        worker.finish(lease)
        with process(**variables) as api:
            address_of(api)
            follower.join(timeout=60)
            assert not follower.is_alive()
            log = client.events(search.id).items
    assert told
    assert tuple(seen) == log
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].kind == "search.succeeded"
