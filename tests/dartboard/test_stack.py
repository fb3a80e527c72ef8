"""`dartboard up` and `down` with a real PostgreSQL and a real API.

Ray takes long to start and is left to the acceptance tests: here small processes stand in for the
cluster and the dispatcher, found before the real ones by way of PYTHONPATH.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dartboard import Client
from dartboard.cli import main
from dartboard.errors import LocalError
from dartboard.local import parts
from dartboard.local.parts import Layout, Plan
from dartboard.local.processes import MARKER, running_since
from dartboard.settings import Settings
from store import embedded, queue
from store.sessions import driver_url, make_engine, transaction

CLUSTER = """
import json, os, pathlib, signal, subprocess, sys
file = pathlib.Path(sys.argv[sys.argv.index("--address-file") + 1])
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(child.kill()))
file.write_text(json.dumps({"address": f"127.0.0.1:{os.getpid()}", "pid": os.getpid()}))
signal.pause()
"""

DISPATCHER = """
import os, signal, sys, time
from store import queue
from store.leases import Capacity, Node
from store.sessions import database_url, make_engine, transaction
from store.settings import StoreSettings

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("cluster at", os.environ["DARTBOARD_RAY_ADDRESS"], flush=True)
if os.environ.get("BROKEN"):
    sys.exit("nothing works today")
if os.environ.get("SLOW"):
    time.sleep(600)
engine = make_engine(database_url(StoreSettings()))
while True:
    with transaction(engine) as session:
        name = f"stand-in-{os.getpid()}"
        queue.heartbeat(session, name, host="here", pid=os.getpid(), capacity=Capacity((Node(2),)))
    time.sleep(1)
"""

Json = Callable[..., Any]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty home, in whose `dartboard up` the workers are stand-ins; `down` at the end."""
    workers = tmp_path / "stand-ins" / "workers"
    workers.mkdir(parents=True)
    (workers / "__init__.py").touch()
    (workers / "cluster.py").write_text(CLUSTER)
    (workers / "dispatcher.py").write_text(DISPATCHER)
    for name in [name for name in os.environ if name.startswith("DARTBOARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(workers.parent))
    with tempfile.TemporaryDirectory(prefix="dartboard-test-", ignore_cleanup_errors=True) as name:
        # As root the server runs as a user of its own, which has to get through to its data.
        Path(name).chmod(0o755)
        monkeypatch.setenv("DARTBOARD_HOME", name)
        monkeypatch.setenv("DARTBOARD_PORT", str(free_port()))
        yield Path(name)
        main(["down", "--json"])


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Json:
    """Runs a command with --json and gives what it printed."""

    def run(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def pids(said: Json, code: int = 0) -> dict[str, int]:
    return {part["name"]: part["pid"] for part in said("status", code=code)["parts"]}


def num_searches(home: Path) -> int:
    """How many searches the embedded PostgreSQL of a home remembers."""
    engine = make_engine(driver_url(embedded.start(home)))
    try:
        with transaction(engine) as session:
            return sum(queue.overview(session).counts.values())
    finally:
        engine.dispose()
        embedded.stop(home)


def left_over(home: Path) -> list[str]:
    """What still runs of a home."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("DARTBOARD_HOME") == str(home) and MARKER in environment:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def kill(pid: int) -> None:
    """Kills a process and waits for its end, which on a busy machine is not at once."""
    process = psutil.Process(pid)
    process.kill()
    process.wait(60)


def test_up_status_down_with_the_embedded_postgresql(
    home: Path, said: Json, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said("status", code=1)["fine"] is False
    up = said("up")
    assert set(up["started"]) == {"postgres", "cluster", "dispatcher", "api"}
    # A client of the same home finds it, wherever it listens.
    with Client() as client:
        assert client.url == up["url"]
        assert client.ready().ready
        client.submit(preset="digits-quick")
    status = said("status")
    assert status["fine"]
    assert [part["state"] for part in status["parts"]] == ["running"] * 4
    assert status["counts"]["queued"] == 1
    address = next(part["address"] for part in status["parts"] if part["name"] == "cluster")
    logs = said("logs")
    assert f"cluster at {address}" in logs["dispatcher"]["lines"]
    assert logs["postgres itself"]["lines"]

    before = pids(said)
    assert said("up")["started"] == []
    assert pids(said) == before

    # A dispatcher goes with its cluster, whose address it was started with.
    kill(before["cluster"])
    assert set(said("up")["started"]) == {"cluster", "dispatcher"}
    assert pids(said)["api"] == before["api"]

    assert main(["down"]) == 0
    assert "(1 queued, 0 running)" in capsys.readouterr().out
    assert left_over(home) == []
    assert running_since(before["postgres"], "postgres") is None
    assert not (home / "server.json").exists()
    assert said("down")["stopped"] == []
    assert num_searches(home) == 1


def test_up_after_a_crash_starts_what_is_missing(
    home: Path, said: Json, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARTBOARD_DATABASE_URL", database_url)
    up = said("up")
    assert "postgres" not in up["started"]
    before = pids(said)

    kill(before["api"])
    status = said("status", code=1)
    states = {part["name"]: part["state"] for part in status["parts"]}
    assert states == {
        "postgres": "external",
        "cluster": "running",
        "dispatcher": "running",
        "api": "crashed",
    }
    # It comes back where those who follow a search look for it.
    monkeypatch.delenv("DARTBOARD_PORT")
    again = said("up")
    assert again["started"] == ["api"]
    assert again["url"] == up["url"]
    assert pids(said)["dispatcher"] == before["dispatcher"]

    kill(before["cluster"])
    kill(before["dispatcher"])
    assert said("down")["stopped"] == ["api"]
    assert left_over(home) == []


def test_what_does_not_start_is_told_and_the_rest_stopped(
    home: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DARTBOARD_DATABASE_URL", database_url)
    monkeypatch.setenv("BROKEN", "1")
    assert main(["up"]) == 1
    err = capsys.readouterr().err
    assert "dispatcher ended instead of starting" in err
    assert "nothing works today" in err
    assert str(home / "logs" / "dispatcher.log") in err
    assert left_over(home) == []


def test_sigterm_stops_what_up_has_started(
    home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARTBOARD_DATABASE_URL", database_url)
    monkeypatch.setenv("SLOW", "1")
    with subprocess.Popen(
        [sys.executable, "-m", "dartboard", "up"], stdout=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("api"):
                break
        assert len(left_over(home)) == 4
        up.send_signal(signal.SIGTERM)
        rest = up.stdout.read()
    assert up.returncode == 128 + signal.SIGTERM
    assert "dispatcher  stopped" in rest
    assert left_over(home) == []


def test_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = Plan(Layout(tmp_path), {})
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        with pytest.raises(LocalError, match="--port"):
            Plan(Layout(tmp_path), {}, port=taken).choose_port()
        monkeypatch.setattr(parts, "DEFAULT_PORT", taken)
        assert plan.choose_port() != taken
    free = free_port()
    monkeypatch.setattr(parts, "DEFAULT_PORT", free)
    assert plan.choose_port() == free
    assert Plan.private(tmp_path).choose_port() != free


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("box", "http://box:1"),
    ],
)
def test_the_address_of_the_api_as_this_machine_reaches_it(
    tmp_path: Path, host: str, url: str
) -> None:
    settings = Settings.read({"DARTBOARD_HOME": str(tmp_path), "DARTBOARD_HOST": host})
    assert Plan.of(settings).url(1) == url


def test_a_private_plan_inherits_nothing_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DARTBOARD_DATABASE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("DARTBOARD_PORT", "80")
    plan = Plan.private(tmp_path)
    assert plan.database_url is None
    assert plan.port is None
    ours = {name for name in plan.environment if name.startswith("DARTBOARD_")}
    assert ours == {"DARTBOARD_HOME"}


def test_a_home_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DARTBOARD_HOME", str(tmp_path / "file"))
    assert main(["up", "--json"]) == 1
    error = json.loads(capsys.readouterr().err)
    assert error["error"] == "local"
    assert "DARTBOARD_HOME" in error["message"]
