"""The parts of a deployment, each of which can be started, looked at and started again."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx2
import psutil

from benchmarks.faults import processes
from store import embedded
from store.errors import DatabaseUnavailableError

_PATIENCE_SECONDS: Final = 150.0
_RAY: Final = str(Path(sys.executable).with_name("ray"))


class PartError(RuntimeError):
    """A part did not start in time; the message names its log."""


class Part:
    """A process that is started again after it was killed, as a supervisor would.

    Args:
        name: For people, and of its log.
        command: What it runs.
        environment: All of its environment.
        log: Where its words go.
        is_ready: Whether it can be used, judged by what it has written since it was started.

    Attributes:
        is_down: Whether it was killed and is not back.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        is_ready: Callable[[str], bool],
    ) -> None:
        self.name = name
        self.is_down = True
        self._command = command
        self._environment = environment
        self._log = log
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process | None:
        """What was started last; None if it has ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        return psutil.Process(self._process.pid)

    def family(self) -> list[psutil.Process]:
        """Its process with all that this has started, itself first."""
        process = self.process
        if process is None:
            return []
        try:
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def start(self) -> None:
        """Starts it, again if it ends before it is ready, and waits until it is.

        Raises:
            PartError: It does not get ready.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            begin = self._log.stat().st_size if self._log.exists() else 0
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while self._process.poll() is None:
                if self._is_ready(self._said_since(begin)):
                    self.is_down = False
                    return
                self._check(deadline)
                time.sleep(0.1)
            # Such as without the database, which may have been killed too.
            self._check(deadline)
            time.sleep(0.5)

    def ended_by_itself(self) -> int | None:
        """The exit status of one that nobody killed; None while it is as it should be."""
        if self.is_down or self._process is None:
            return None
        return self._process.poll()

    def terminate(self) -> None:
        """Stops it in good order, or else by force, with all that it has started."""
        family = self.family()
        if self._process is not None and family:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        processes.kill(each for each in family if processes.is_alive(each))

    def _said_since(self, begin: int) -> str:
        with self._log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise PartError(f"{self.name} does not start; its log is {self._log}")


def api(home: Path, url: str, environment: Mapping[str, str], log: Path) -> Part:
    """The API, which is ready when it answers."""

    def is_ready(said: str) -> bool:
        try:
            return httpx2.get(f"{url}/healthz", timeout=5).is_success
        except httpx2.TransportError:
            return False

    return Part("API", [sys.executable, "-m", "service"], environment, log, is_ready)


def dispatcher(name: str, environment: Mapping[str, str], log: Path) -> Part:
    """A dispatcher, which is ready when it says so."""
    command = [sys.executable, "-m", "workers.dispatcher"]
    return Part(name, command, environment, log, lambda said: "at work" in said)


def ray_node(name: str, environment: Mapping[str, str], log: Path, *options: str) -> Part:
    """A node of Ray as an operator starts it."""
    command = [_RAY, "start", "--block", "--dashboard-agent-listen-port=0", *options]
    return Part(name, command, environment, log, lambda said: "Ray runtime started" in said)


class Postgres:
    """The database, of its own.

    Args:
        home: The deployment's folder.

    Attributes:
        is_down: Whether it was killed and is not back.
    """

    def __init__(self, home: Path) -> None:
        self.name = "PostgreSQL"
        self.is_down = True
        self._home = home

    def start(self) -> str:
        """Starts it, after a crash too, which it mends by itself.

        Returns:
            Its URL.

        Raises:
            DatabaseUnavailableError: It does not start.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                url = embedded.start(self._home)
            except DatabaseUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                self.is_down = False
                return url

    def family(self) -> list[psutil.Process]:
        """Its postmaster and all that this has started, itself first."""
        file = self._home / "postgres" / "postmaster.pid"
        try:
            postmaster = psutil.Process(int(file.read_text().split(maxsplit=1)[0]))
            if postmaster.name() != "postgres":
                return []  # the pid is somebody else's by now
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return []

    def terminate(self) -> None:
        """Stops it in good order, or else by force."""
        family = self.family()
        embedded.stop(self._home)
        processes.kill(each for each in family if processes.is_alive(each))


def clean_environment() -> dict[str, str]:
    """This process's environment without what would make the parts belong to somebody else."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DARTBOARD_", "RAY_"))
    }
