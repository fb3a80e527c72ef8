"""A whole deployment on this machine, whose parts are started again when they were killed."""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import psutil

from benchmarks.faults import parts, processes
from benchmarks.faults.parts import Part, Postgres
from benchmarks.faults.processes import Census
from dartboard.local.processes import MARKER
from migrations.upgrade import upgrade
from service.first_key import key_file
from store.sessions import driver_url
from workers import ray_token, warming

LEASE_SECONDS: Final = 10.0
NUM_DISPATCHERS: Final = 2
NUM_NODES: Final = 2
_CPUS_OF_A_NODE: Final = 1

_PATIENT: Final = {
    "DARTBOARD_LEASE_SECONDS": str(LEASE_SECONDS),
    # What is injected must not use up what searches have for faults of their own.
    "DARTBOARD_MAX_FAILURES": "1000",
    "DARTBOARD_TRIAL_FAILURES": "1000",
    "DARTBOARD_NODE_LOSSES": "1000",
}
_RAY: Final = {
    # Seconds until the head takes a killed node for dead, instead of a quarter of a minute.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    **warming.ENVIRONMENT,
    "CUDA_VISIBLE_DEVICES": "",
}


class Deployment:
    """PostgreSQL, the API, dispatchers and a Ray cluster of several nodes.

    Args:
        home: A folder with a short name, for Ray puts sockets there.

    Attributes:
        census: Its processes.
        notes: What its parts did that nobody had asked for.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.notes: list[str] = []
        self.marker = f"faults-{uuid4().hex}"
        self.census = Census(self.marker)
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._head_address = f"127.0.0.1:{_free_port()}"
        self._logs = home / "parts"
        self._pool = ThreadPoolExecutor(16)
        self._revivals: list[Future[None]] = []
        self._closing = threading.Event()
        self.postgres = Postgres(home)
        self.database_url = ""
        self.api: Part
        self.dispatchers: list[Part] = []
        self.head: Part
        self.nodes: list[Part] = []

    def __enter__(self) -> Self:
        self._logs.mkdir()
        # As root, PostgreSQL runs as a user of its own, which has to get through to its data.
        self.home.chmod(0o755)
        os.environ[MARKER] = self.marker
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        self.database_url = driver_url(self.postgres.start())
        upgrade(self.database_url)
        token = ray_token.token_file(self.home)
        ray = {
            **parts.clean_environment(),
            **_RAY,
            MARKER: self.marker,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        host, port = self._head_address.split(":")
        self.head = self._node(
            "head",
            ray,
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--temp-dir={self.home / 'ray'}",
        )
        self.nodes = [
            self._node(
                f"node-{number}",
                ray,
                f"--address={self._head_address}",
                f"--num-cpus={_CPUS_OF_A_NODE}",
            )
            for number in range(NUM_NODES)
        ]
        ours = {
            **ray,
            **_PATIENT,
            "DARTBOARD_DATABASE_URL": self.database_url,
            "DARTBOARD_HOME": str(self.home),
            "DARTBOARD_HOST": host,
            "DARTBOARD_PORT": self.url.rpartition(":")[2],
            "DARTBOARD_EXECUTOR": "ray",
            "DARTBOARD_RAY_ADDRESS": self._head_address,
        }
        self.api = parts.api(self.home, self.url, ours, self._log("api"))
        self.dispatchers = [
            parts.dispatcher(
                f"dispatcher {number}",
                # The first keeps a runner warm, the second none: both ways are to hold.
                ours | {"DARTBOARD_WARM_RUNNERS": str(int(number == 0))},
                self._log(f"dispatcher-{number}"),
            )
            for number in range(NUM_DISPATCHERS)
        ]
        self.api.start()
        self.head.start()
        for started in [self._pool.submit(each.start) for each in self.nodes]:
            started.result()
        for part in self.dispatchers:
            part.start()

    def _node(self, name: str, environment: dict[str, str], *options: str) -> Part:
        return parts.ray_node(name, environment, self._log(name), *options)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    @property
    def key(self) -> str:
        """The key of the API's own machine."""
        return key_file(self.home).read_text().strip()

    def revive(self, part: Part | Postgres, pause: float, on_back: Callable[[], None]) -> None:
        """Starts a killed part again after a pause, aside.

        Args:
            part: Its processes are gone, or go now.
            pause: Seconds.
            on_back: Called once it can be used again.
        """
        part.is_down = True
        with_head: Sequence[Part] = [self.head, *self.nodes] if part is self.head else ()
        for each in with_head:
            each.is_down = True

        def work() -> None:
            processes.kill(part.family())
            for each in with_head:
                # Nodes do not outlive their head; whoever runs them starts them with it.
                processes.kill(each.family())
            if self._closing.wait(pause):
                return
            part.start()
            for started in [self._pool.submit(each.start) for each in with_head[1:]]:
                started.result()
            on_back()

        self._revivals.append(self._pool.submit(work))

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Does something after a while, also if the deployment is closed before."""

        def wait_and_work() -> None:
            self._closing.wait(seconds)
            work()

        self._revivals.append(self._pool.submit(wait_and_work))

    def look(self) -> list[psutil.Process]:
        """Sees after the parts that have ended by themselves, and starts them again.

        Returns:
            All processes of the deployment.
        """
        for part in [self.api, *self.dispatchers, self.head, *self.nodes]:
            status = part.ended_by_itself()
            if status is not None:
                self.notes.append(f"{part.name} ended by itself with status {status}")
                self.revive(part, 0.5, lambda: None)
        for revival in self._revivals:
            if revival.done():
                revival.result()
        return self.census.take()

    def wait_until_back(self, seconds: float) -> None:
        """Waits until nothing is down.

        Raises:
            TimeoutError: Something is still down after that time.
        """
        deadline = time.monotonic() + seconds
        for revival in [*self._revivals]:
            revival.result(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Stops all parts; what they leave behind is in the census."""
        self._closing.set()
        for revival in self._revivals:
            if revival.exception() is not None:
                self.notes.append(f"a part did not come back: {revival.exception()}")
        self.census.take()
        for dispatcher in self.dispatchers:
            dispatcher.terminate()
        started = [getattr(self, name) for name in ("api", "head") if hasattr(self, name)]
        for part in [*self.nodes, *reversed(started)]:
            part.terminate()
        self.postgres.terminate()
        self._pool.shutdown()

    def leftovers(self, seconds: float) -> list[str]:
        """What still runs of a closed deployment after a while; ends it."""
        deadline = time.monotonic() + seconds
        while (left := self.census.take()) and time.monotonic() < deadline:
            time.sleep(0.2)
        names = [
            f"{each.pid} {' '.join(each.cmdline())[:120]}" for each in left if each.is_running()
        ]
        processes.kill(left)
        return names


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
