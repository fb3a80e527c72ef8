"""`python -m service` as a process: starts, answers, refuses to start, stops on SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine, delete

from service.__main__ import _listen
from service.settings import ServiceSettings
from store.models import Key
from store.sessions import transaction
from tests.conftest import BEARER
from tests.service.conftest import SPEC


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path)


@contextmanager
def process(**variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DARTBOARD_")},
        **{f"DARTBOARD_{name}": value for name, value in variables.items()},
    }
    with subprocess.Popen(
        [sys.executable, "-m", "service"], env=environment, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def address_of(service: subprocess.Popen[str]) -> str:
    """Where a process that has just been started listens, once it does."""
    assert service.stderr is not None
    address = ""
    while not address:
        line = service.stderr.readline()
        assert line, "the service ended before it listened"
        address = line.partition("API is at ")[2].strip()
    return address


def test_it_serves_until_sigterm_and_ends_its_streams(database_url: str, home: str) -> None:
    with process(DATABASE_URL=database_url, PORT="0", HOME=home) as service:
        address = address_of(service)
        search = httpx2.post(f"{address}/v1/searches", json=SPEC, headers=BEARER).json()
        with httpx2.stream(
            "GET",
            f"{address}/v1/searches/{search['id']}/events",
            headers={**BEARER, "Accept": "text/event-stream"},
        ) as stream:
            lines = stream.iter_lines()
            assert "search.queued" in next(line for line in lines if line.startswith("event"))
            started = time.monotonic()
            service.send_signal(signal.SIGTERM)
            assert not any(line.startswith("event") for line in lines)
        service.wait(timeout=10)
        assert time.monotonic() - started < 5
        assert service.stderr is not None
        assert "Traceback" not in service.stderr.read()


def test_a_taken_port_is_told_in_one_line(database_url: str, home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process(DATABASE_URL=database_url, PORT=port, HOME=home) as service:
            _, errors = service.communicate(timeout=30)
    assert service.returncode == 1
    assert errors.count("\n") == 1
    assert f"127.0.0.1:{port}" in errors
    assert "DARTBOARD_PORT" in errors
    assert not (Path(home) / "api-key").exists()


def test_the_first_start_makes_a_key_for_the_user_of_this_machine(
    database_url: str, home: str
) -> None:
    file = Path(home) / "api-key"
    with process(DATABASE_URL=database_url, PORT="0", HOME=home) as service:
        address = address_of(service)
        bearer = {"Authorization": f"Bearer {file.read_text().strip()}"}
        assert httpx2.get(f"{address}/v1/me", headers=bearer).json()["owner"] == "local"
        assert httpx2.get(f"{address}/v1/me").status_code == 401


def test_without_a_key_it_does_not_listen_beyond_the_loopback(
    engine: Engine, database_url: str, home: str
) -> None:
    with transaction(engine) as session:
        session.execute(delete(Key))
    with process(DATABASE_URL=database_url, PORT="0", HOME=home, HOST="0.0.0.0") as service:
        _, errors = service.communicate(timeout=30)
    assert service.returncode == 1
    assert errors.count("\n") == 1
    assert "python -m store.keys create" in errors


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"DATABASE_URL": "postgresql://user:secret@127.0.0.1:1/dartboard"},
            "PostgreSQL does not answer",
        ),
        ({"DATABASE_URL": "sqlite:///x"}, "PostgreSQL only"),
        ({"PORT": "eighty"}, "DARTBOARD_PORT"),
    ],
)
def test_what_is_wrong_with_its_settings_is_told_in_one_line(
    home: str, variables: dict[str, str], told: str
) -> None:
    with process(**variables, HOME=home) as service:
        _, errors = service.communicate(timeout=30)
    assert service.returncode == 1
    assert errors.count("\n") == 1
    assert told in errors
    assert "secret" not in errors


def test_no_part_of_an_answer_waits_for_an_acknowledgement() -> None:
    with (
        _listen(ServiceSettings(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
