"""The API and the bare endpoint, each in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from benchmarks.queue.stored import Database

_PATIENCE_SECONDS = 60.0


@contextmanager
def api(database: Database, home: Path) -> Iterator[str]:
    """Dartboard's API on a database; gives its address."""
    with _serving(["-m", "service"], database, home, path="/healthz") as address:
        yield address


@contextmanager
def bare(database: Database, home: Path) -> Iterator[str]:
    """The bare endpoint on a database; gives its address."""
    with _serving(["-m", "benchmarks.queue.bare"], database, home, path="/docs") as address:
        yield address


@contextmanager
def _serving(command: list[str], database: Database, home: Path, *, path: str) -> Iterator[str]:
    port = _free_port()
    environment = {
        **os.environ,
        "DARTBOARD_DATABASE_URL": database.url,
        "DARTBOARD_HOME": str(home),
        "DARTBOARD_PORT": str(port),
    }
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command, str(port)], env=environment, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}{path}", process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            httpx2.get(url).raise_for_status()
        except httpx2.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
