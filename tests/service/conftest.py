"""The real application: in this process for most tests, under a real uvicorn for streams."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from search_core.genotype import CellGenotype, Edge, Genotype
from search_core.spec import SearchSpec
from service.__main__ import Server
from service.app import create_app
from service.settings import ServiceSettings
from store import architectures, endings, epoch_reports, leases, queue, recording, searches
from store.epoch_reports import EpochResult
from store.leases import Capacity, Lease, Node
from store.sessions import transaction
from tests.conftest import BEARER

SPEC: dict[str, Any] = {
    "name": "first",
    "space": {"kind": "darts", "channels": 2, "cells": 3, "nodes": 1},
    "training": {"epochs": 3, "batch_size": 32},
    "trials": {"seeds": [0, 7]},
    "labels": {"team": "vision"},
}
ONE_NODE = Capacity((Node(cpus=4),))
MINUTE = timedelta(minutes=1)


def genotype(primitive: str = "sep_conv_3x3") -> CellGenotype:
    """A small architecture; another primitive gives another one."""
    edges = (Edge(primitive, 0), Edge("skip_connect", 1))
    return CellGenotype(normal=edges, normal_concat=(2,), reduce=edges, reduce_concat=(2,))


class Api:
    """The application and a client of it, for tests that are written without async."""

    def __init__(self, url: str, **settings: Any) -> None:
        # What is sent to webhooks, and where, is for the tests of that alone.
        settings = {"webhooks_senders": 0, **settings}
        self.app = create_app(ServiceSettings(database_url=url, **settings))

    def __enter__(self) -> "Api":
        self._runner = asyncio.Runner()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._runner.run(self._lifespan.__aenter__())
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx2.AsyncClient(
            transport=transport, base_url="http://api", headers=BEARER
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("POST", path, **options)

    def submit(self, **changes: Any) -> dict[str, Any]:
        """The answer to a submitted search."""
        answer = self.post("/v1/searches", json={**SPEC, **changes})
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    with Api(database_url) as api:
        yield api


@pytest.fixture(scope="session")
def offline() -> Iterator[Api]:
    """The application without a database: enough for whatever is refused before it is asked."""
    with Api("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as api:
        yield api


@pytest.fixture
def worker(engine: Engine) -> "Worker":
    return Worker(engine)


class Worker:
    """Writes what a runner would, through the store's own functions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, **changes: Any) -> str:
        with transaction(self._engine) as session:
            spec = SearchSpec.model_validate({**SPEC, **changes})
            return str(searches.submit(session, spec).id)

    def heartbeat(self, *, memory: float | None = None) -> None:
        capacity = Capacity((Node(cpus=4, memory=memory),))
        with transaction(self._engine) as session:
            queue.heartbeat(session, "box:1", host="box", pid=1, capacity=capacity)

    def claim(self) -> Lease:
        with transaction(self._engine) as session:
            lease = leases.claim(session, ONE_NODE, holder="box:2", duration=MINUTE)
        assert lease is not None
        return lease

    def epoch(self, lease: Lease, number: int, trial: int = 0, **metrics: float) -> None:
        values = {"validation_accuracy": 0.5 + number / 100, "train_loss": 1 / number, **metrics}
        with transaction(self._engine) as session:
            trial_id = searches.trials(session, lease.search_id)[trial].id
            epoch_reports.epoch_ended(
                session, lease, trial_id, EpochResult(number, values, genotype())
            )

    def succeed(self, lease: Lease, trial: int, primitive: str = "sep_conv_3x3") -> None:
        with transaction(self._engine) as session:
            trial_id = searches.trials(session, lease.search_id)[trial].id
            recording.trial_succeeded(session, lease, trial_id, genotype(primitive))

    def finish(self, lease: Lease) -> None:
        with transaction(self._engine) as session:
            endings.finish(session, lease)

    def store(self, value: Genotype) -> None:
        with transaction(self._engine) as session:
            architectures.put(session, value)

    def run_to_the_end(self) -> Lease:
        """Runs the first search of the queue: trial 1 is the better one."""
        lease = self.claim()
        self.run_down(lease)
        return lease

    def run_down(self, lease: Lease) -> None:
        """Runs a claimed search to its end."""
        for trial in (0, 1):
            self.epoch(lease, 1, trial, train_loss=float("nan"))
            self.epoch(lease, 2 + trial, trial)
        self.succeed(lease, 0, "max_pool_3x3")
        self.succeed(lease, 1)
        self.finish(lease)


@contextmanager
def serving(url: str, **settings: Any) -> Iterator[str]:
    """The application under a real uvicorn in a thread; gives its address."""
    options = ServiceSettings(database_url=url, shutdown_seconds=5, **settings)
    server = Server(create_app(options), options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


@asynccontextmanager
async def client(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=address, timeout=20, headers=BEARER) as opened:
        yield opened
