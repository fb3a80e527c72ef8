"""A real server on a database of the test's own, and a stand-in for the workers.

The stand-in writes through `store.recording` and its neighbours, exactly as a runner does.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import Engine

from dartboard import Client
from dartboard.cli import main
from search_core.genotype import CellGenotype, Edge
from service.__main__ import Server
from service.app import create_app
from service.settings import ServiceSettings
from store import endings, epoch_reports, leases, queue, recording
from store.artifacts import logs_of
from store.epoch_reports import EpochResult, EpochWarning
from store.leases import Capacity, Lease, Node
from store.sessions import transaction
from store.states import Reason
from tests.conftest import KEY

CAPACITY = Capacity((Node(cpus=2),))

GENOTYPES = [
    CellGenotype(
        normal=(Edge("sep_conv_3x3", 0), Edge(second, 1)),
        normal_concat=(2,),
        reduce=(Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
        reduce_concat=(2,),
    )
    for second in ("skip_connect", "dil_conv_5x5")
]

SPEC = {
    "name": "small",
    "space": {"kind": "darts", "nodes": 1},
    "training": {"epochs": 2},
    "trials": {"seeds": [0, 1]},
}


COLLAPSED = EpochWarning("collapsed", "All edges skip.")


class Said(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Dartboard = Callable[..., Said]


def genotypes_in(text: str) -> list[str]:
    """Every published text form in a command's output."""
    found = []
    for piece in text.split("  Genotype(")[1:]:
        end = piece.index("])") + 2
        found.append("Genotype(" + piece[:end])
    return found


class Served:
    """The API in a thread, on a port that it keeps when it is started again."""

    def __init__(self, database_url: str, storage: Path) -> None:
        self.storage = storage
        self._settings = ServiceSettings(
            database_url=database_url,
            storage=str(storage),
            shutdown_seconds=1,
            webhooks_allow_private=True,
            webhooks_poll_seconds=0.1,
        )
        self._listener: socket.socket | None = None
        self.port = 0
        self.start()

    def keep_log(self, job_id: UUID, name: str, content: str) -> None:
        """Keeps a log, as a runner does."""
        logs_of(str(self.storage), job_id).open().write(name, content.encode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._server = Server(create_app(self._settings), self._settings)
        # Its log goes where pytest's does, not to streams that end with the test.
        for name in ("uvicorn", "uvicorn.access"):
            logging.getLogger(name).handlers.clear()
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}
        )
        self._thread.start()

    def stop(self) -> None:
        if self._listener is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
        self._listener = None


class Worker:
    """Claims searches and records what their trials would report."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def sign_on(self) -> None:
        """Becomes a dispatcher that was seen."""
        with transaction(self._engine) as session:
            queue.heartbeat(session, "test", host="here", pid=1, capacity=CAPACITY)

    def claim(self) -> Lease:
        with transaction(self._engine) as session:
            lease = leases.claim(session, CAPACITY, holder="test", duration=timedelta(minutes=1))
        assert lease is not None
        return lease

    def load(self, lease: Lease, trial_id: UUID) -> None:
        """Gives a trial its place."""
        with transaction(self._engine) as session:
            recording.trial_starting(session, lease, trial_id)

    def train(
        self,
        lease: Lease,
        trial_id: UUID,
        *,
        epochs: int,
        genotype: CellGenotype,
        warnings: tuple[EpochWarning, ...] = (),
    ) -> None:
        """Runs a trial up to an epoch; each epoch has the warnings."""
        with transaction(self._engine) as session:
            recording.trial_started(
                session, lease, trial_id, from_epoch=0, node="here", pid=1, relaxation="fast"
            )
        for epoch in range(1, epochs + 1):
            metrics = {
                "train_loss": 1.0 / epoch,
                "validation_loss": float("nan") if epoch == 1 else 0.5,
                "validation_accuracy": 0.4 + 0.1 * epoch + 0.01 * (genotype is GENOTYPES[1]),
                "seconds": 2.0,
                "steps_per_second": 2.5,
                "images_per_second": 160.0,
                "peak_memory_bytes": 3.5 * 2**30,
            }
            with transaction(self._engine) as session:
                epoch_reports.epoch_ended(
                    session, lease, trial_id, EpochResult(epoch, metrics, genotype, warnings)
                )

    def succeed(self, lease: Lease, trial_id: UUID, genotype: CellGenotype) -> None:
        with transaction(self._engine) as session:
            recording.trial_succeeded(session, lease, trial_id, genotype)

    def fail(self, lease: Lease, trial_id: UUID) -> None:
        with transaction(self._engine) as session:
            recording.trial_failed(
                session, lease, trial_id, reason=Reason.DIVERGED, message="The loss diverged."
            )

    def finish(self, lease: Lease) -> None:
        with transaction(self._engine) as session:
            endings.finish(session, lease)

    def give_back(self, lease: Lease) -> None:
        with transaction(self._engine) as session:
            leases.give_back(
                session, lease, reason=Reason.SHUTDOWN, message="Stopped.", max_failures=3
            )

    def run(self) -> UUID:
        """Runs the next search to a good end."""
        lease = self.claim()
        with transaction(self._engine) as session:
            trial_ids = [trial.id for trial in recording.open_trials(session, lease)]
        for trial_id, genotype in zip(trial_ids, GENOTYPES, strict=True):
            self.train(lease, trial_id, epochs=2, genotype=genotype)
            self.succeed(lease, trial_id, genotype)
        self.finish(lease)
        return lease.search_id


@pytest.fixture(autouse=True)
def no_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away a width that the tests' own environment names, such as a parallel runner's."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def server(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The API; `DARTBOARD_URL` names it, and `DARTBOARD_API_KEY` lets in."""
    served = Served(database_url, tmp_path_factory.mktemp("storage"))
    monkeypatch.setenv("DARTBOARD_URL", served.url)
    monkeypatch.setenv("DARTBOARD_API_KEY", KEY)
    yield served
    served.stop()


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    """A client of the server."""
    with Client() as client:
        yield client


@pytest.fixture
def worker(engine: Engine) -> Worker:
    """What stands in for the dispatcher and its runners."""
    return Worker(engine)


@pytest.fixture
def dartboard(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> Dartboard:
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARTBOARD_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def found(client: Client, worker: Worker) -> str:
    """The id of a search that succeeded."""
    client.submit(SPEC)
    return str(worker.run())
