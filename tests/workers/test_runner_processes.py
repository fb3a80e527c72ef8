"""Runners that are ready before there is work: given it, lost, replaced, let go of."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
from sqlalchemy import Engine

from search_core.pace import reproducible
from store import leases, verbs
from store.leases import Capacity, Lease, Node
from store.sessions import transaction
from tests.workers.conftest import (
    RayCluster,
    Record,
    Start,
    runners_on,
    wait_until,
)
from tests.workers.test_runner import claim
from workers.dispatcher import Dispatcher
from workers.exits import Exit
from workers.inline_trials import InlineTrials
from workers.runner import run
from workers.runner_processes import Assignment, RunnerProcesses
from workers.settings import WorkerSettings


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def processes(
    settings: WorkerSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunnerProcesses]:
    monkeypatch.setenv("DARTBOARD_EXECUTOR", "inline")
    monkeypatch.setenv("DARTBOARD_HOME", str(settings.home))
    assert settings.database_url is not None
    log = settings.home / "waiting.log"
    held = RunnerProcesses(settings.database_url, num_warm=2, log=log, clock=clock)
    yield held
    held.close()


def test_an_assignment_survives_its_line() -> None:
    assignment = Assignment.of(Lease(uuid4(), uuid4(), 3), Path("/tmp/a log"))
    line = assignment.to_line().decode()
    assert line.count("\n") == 1
    assert Assignment.read(line) == assignment
    assert assignment.lease.attempt == 3
    assert Assignment.read("") is None


def test_as_many_are_kept_ready_as_is_said(
    processes: RunnerProcesses, settings: WorkerSettings
) -> None:
    processes.refill()
    assert processes.num_ready == 2
    processes.refill()
    wait_until(lambda: len(runners_on(settings)) == 2)
    processes.close()
    assert processes.num_ready == 0
    assert runners_on(settings) == []


def test_those_that_do_not_last_are_not_started_at_once_again(
    processes: RunnerProcesses, settings: WorkerSettings, clock: Clock
) -> None:
    processes.refill()
    # A process that was only just forked does not show yet what it is.
    wait_until(lambda: len(runners_on(settings)) == 2)
    for process in runners_on(settings):
        process.kill()
        psutil.wait_procs([process])
    processes.refill()
    assert processes.num_ready == 0
    clock.now = 11.0
    processes.refill()
    assert processes.num_ready == 2


def test_one_that_has_ended_is_not_given_work(
    processes: RunnerProcesses, settings: WorkerSettings, clock: Clock, tmp_path: Path
) -> None:
    processes.refill()
    clock.now = 20.0  # so that they have loaded
    wait_until(lambda: len(runners_on(settings)) == 2)
    first, second = sorted(runners_on(settings), key=lambda process: process.create_time())
    first.kill()
    psutil.wait_procs([first])
    # Nobody holds this lease, which is how a runner that does not hold its search ends.
    given = processes.start(Lease(uuid4(), uuid4(), 1), tmp_path / "its.log")
    assert given.pid == second.pid
    # Others leave it the cores while its trials start.
    processes.refill()
    assert processes.num_ready == 0
    clock.now += 6.0
    processes.refill()
    assert processes.num_ready == 2
    assert given.wait(120) not in (Exit.ENDED, Exit.NOTHING_TO_RUN)
    assert (tmp_path / "its.log").read_text() != ""


@pytest.mark.parametrize("is_started", [False, True])
def test_one_that_was_not_ready_is_left_the_cores_for_longer(
    processes: RunnerProcesses, clock: Clock, tmp_path: Path, is_started: bool
) -> None:
    if is_started:
        processes.refill()
    given = processes.start(Lease(uuid4(), uuid4(), 1), tmp_path / "its.log")
    clock.now = 6.0
    processes.refill()
    assert processes.num_ready == int(is_started)
    clock.now = 21.0
    processes.refill()
    assert processes.num_ready == 2
    assert given.wait(120) not in (Exit.ENDED, Exit.NOTHING_TO_RUN)


def test_one_that_still_loads_holds_what_it_is_given(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert settings.database_url is not None
    search_id = submit()
    with socket.create_server(("", 0)) as silent:
        # A head that takes connections and answers nothing: joining it takes as long as it likes.
        # Ray goes to its own address, and not to that of the loopback.
        port = silent.getsockname()[1]
        monkeypatch.setenv("DARTBOARD_EXECUTOR", "ray")
        monkeypatch.setenv("DARTBOARD_RAY_ADDRESS", f"127.0.0.1:{port}")
        monkeypatch.setenv("DARTBOARD_HOME", str(settings.home))
        monkeypatch.setenv("DARTBOARD_LEASE_SECONDS", "6")
        held = RunnerProcesses(settings.database_url, num_warm=1, log=tmp_path / "waiting.log")
        try:
            held.refill()
            silent.settimeout(120)
            joining, _ = silent.accept()
            with transaction(engine) as session:
                lease = leases.claim(
                    session, Capacity((Node(cpus=1),)), holder="x", duration=timedelta(seconds=6)
                )
            assert lease is not None
            process = held.start(lease, tmp_path / "its.log")
            claimed_until = record(search_id).search.lease_expires_at
            wait_until(lambda: record(search_id).search.lease_expires_at != claimed_until)
            with transaction(engine) as session:
                verbs.request_cancel(session, search_id)
            assert process.wait(60) == Exit.CANCELLED
            joining.close()
        finally:
            held.close()
    assert record(search_id).search.status == "cancelled"


def test_one_whose_dispatcher_is_gone_ends(settings: WorkerSettings) -> None:
    process = subprocess.Popen([sys.executable, "-m", "workers.runner"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(120) == Exit.NOTHING_TO_RUN


def idle_processes(cluster: RayCluster) -> set[int]:
    """Processes of a cluster that are nobody's yet."""
    found = set()
    for process in psutil.process_iter():
        # Any process may be gone by now.
        with suppress(psutil.Error):
            if process.name() == "ray::IDLE":
                raylet = " ".join(psutil.Process(process.ppid()).cmdline())
                if cluster.address in raylet:
                    found.add(process.pid)
    return found


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_search_is_run_by_processes_that_were_ready(
    request: pytest.FixtureRequest,
    engine: Engine,
    settings: WorkerSettings,
    start: Start,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
    executor: str,
) -> None:
    variables = {"DARTBOARD_WARM_RUNNERS": "1", "DARTBOARD_EXECUTOR": executor}
    cluster: RayCluster | None = None
    if executor == "ray":
        cluster = request.getfixturevalue("ray_cluster")
        assert cluster is not None
        variables |= {
            "DARTBOARD_RAY_ADDRESS": cluster.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(cluster.home / "run" / "ray-token"),
        }
        # Those of runners before end with them.
        wait_until(lambda: not idle_processes(cluster))
    dispatcher = start(**variables)
    wait_until(lambda: runners_on(settings))
    (ready,) = runners_on(settings)
    ahead: set[int] = set()
    if cluster is not None:
        wait_until(lambda: len(idle_processes(cluster)) == 2)
        ahead = idle_processes(cluster)
    search_id = submit(trials={"seeds": [0, 1]})
    wait_until(lambda: record(search_id).search.status == "succeeded")
    after = record(search_id)
    pids = [event.data["pid"] for event in after.events if event.kind == "trial.started"]
    if cluster is not None:
        assert set(pids) <= ahead
    said = (settings.home / "dispatcher.log").read_text()
    assert f"search {search_id}, attempt 1: runner {ready.pid}" in said
    written = settings.home / "logs" / "runners" / f"{search_id}-1.log"
    assert "succeeded" in written.read_text()
    dispatcher.terminate()
    dispatcher.wait(120)
    wait_until(lambda: not runners_on(settings))

    again = submit(trials={"seeds": [0, 1]})
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    for trial, other in zip(after.trials, record(again).trials, strict=True):
        assert reproducible(trial.metrics) == reproducible(other.metrics)


class Comings:
    """A cluster that goes and comes back."""

    nodes: tuple[Node, ...] = (Node(cpus=1),)

    def now(self) -> Capacity:
        return Capacity(self.nodes)

    def __enter__(self) -> "Comings":
        return self

    def __exit__(self, *error: object) -> None:
        return


def test_who_joined_a_cluster_that_is_gone_is_given_nothing_of_the_next(
    settings: WorkerSettings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARTBOARD_EXECUTOR", "inline")
    monkeypatch.setenv("DARTBOARD_HOME", str(settings.home))
    assert settings.database_url is not None
    cluster = Comings()
    dispatcher = Dispatcher(settings, engine, settings.database_url, cluster)
    dispatcher.tick()
    (ready,) = runners_on(settings)
    cluster.nodes = ()
    dispatcher.tick()
    assert not ready.is_running()
    assert runners_on(settings) == []
    cluster.nodes = (Node(cpus=1),)
    dispatcher.tick()
    (fresh,) = runners_on(settings)
    assert fresh != ready
    dispatcher.stop()
    dispatcher.run()
    assert runners_on(settings) == []
