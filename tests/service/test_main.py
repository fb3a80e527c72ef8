"""`python -m service` as a process: starts, answers, refuses to start, stops on SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from tests.service.conftest import SPEC


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


def test_it_serves_until_sigterm_and_ends_its_streams(database_url: str) -> None:
    with process(DATABASE_URL=database_url, PORT="0") as service:
        assert service.stderr is not None
        address = ""
        while not address:
            line = service.stderr.readline()
            assert line, "the service ended before it listened"
            address = line.partition("API is at ")[2].strip()
        search = httpx2.post(f"{address}/v1/searches", json=SPEC).json()
        with httpx2.stream(
            "GET",
            f"{address}/v1/searches/{search['id']}/events",
            headers={"Accept": "text/event-stream"},
        ) as stream:
            lines = stream.iter_lines()
            assert "search.queued" in next(line for line in lines if line.startswith("event"))
            started = time.monotonic()
            service.send_signal(signal.SIGTERM)
            assert not any(line.startswith("event") for line in lines)
        service.wait(timeout=10)
        assert time.monotonic() - started < 5
        assert "Traceback" not in service.stderr.read()


def test_a_taken_port_is_told_in_one_line(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process(DATABASE_URL=database_url, PORT=port) as service:
            _, errors = service.communicate(timeout=30)
    assert service.returncode == 1
    assert errors.count("\n") == 1
    assert f"127.0.0.1:{port}" in errors
    assert "DARTBOARD_PORT" in errors


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
    variables: dict[str, str], told: str
) -> None:
    with process(**variables) as service:
        _, errors = service.communicate(timeout=30)
    assert service.returncode == 1
    assert errors.count("\n") == 1
    assert told in errors
    assert "secret" not in errors
