"""Background processes: started detached, known again for certain, stopped with all they started.

A process is known by its pid and its start time, since pids are reused. Everything that it starts
inherits a marker in its environment, by which even orphans of a crashed process are found.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from dartboard.errors import LocalError

MARKER: Final = "DARTBOARD_STARTED_AS"
"""Environment variable with the marker of what was started."""

_START_TIME_TOLERANCE: Final = 1.0
_AFTER_KILL: Final = 5.0


@dataclass(frozen=True)
class Started:
    """A process of ours.

    Attributes:
        pid: Its process id.
        start_time: When it started, in seconds since the epoch, as the system tells it.
        marker: What it and everything it started carries in the environment.
    """

    pid: int
    start_time: float
    marker: str


def start(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, marker: str
) -> Started:
    """Starts a command in a session of its own, so that no Ctrl-C and no hang-up reaches it.

    Args:
        command: The program and its arguments.
        environment: All of its environment, but for the marker.
        log: The file that its output is appended to.
        marker: What tells it from all other processes of the machine.

    Raises:
        LocalError: It cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command,
                env={**environment, MARKER: marker},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise LocalError(f"{command[0]} cannot be started: {error}") from error
    # It outlives this process; what becomes of it is asked of the system.
    process.returncode = 0
    return Started(process.pid, _psutil().Process(process.pid).create_time(), marker)


def is_alive(started: Started) -> bool:
    """Whether this very process still runs; another one with its pid does not count."""
    return _process(started) is not None


def running_since(pid: int, name: str) -> float | None:
    """When a process that we did not start ourselves began, in seconds since the epoch.

    Args:
        pid: Its process id.
        name: The name that it must have.

    Returns:
        None when no such process runs under this id.
    """
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.name() != name:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def stop(started: Started, *, grace: float) -> bool:
    """Ends a process and everything that it started: SIGTERM, then SIGKILL for what is left.

    Args:
        started: The process; it may have ended long ago.
        grace: Seconds that it has to stop in good order.

    Returns:
        Whether it ended in good order, or had ended before.
    """
    psutil = _psutil()
    process = _process(started)
    descendants = [] if process is None else _descendants(process)
    graceful = True
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
        graceful = not _wait([process], grace)
    leftovers = [*_alive(descendants), *_marked(started.marker)]
    if process is not None and not graceful:
        # First the one that might start more.
        leftovers.insert(0, process)
    for leftover in leftovers:
        with contextlib.suppress(psutil.Error):
            leftover.kill()
    _wait(leftovers, _AFTER_KILL)
    return graceful


def _process(started: Started) -> Any | None:
    psutil = _psutil()
    _reap(started.pid)
    try:
        process = psutil.Process(started.pid)
        same = abs(process.create_time() - started.start_time) < _START_TIME_TOLERANCE
        runs = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same and runs else None


def _descendants(process: Any) -> list[Any]:
    try:
        return list(process.children(recursive=True))
    except _psutil().Error:
        return []


def _marked(marker: str) -> list[Any]:
    psutil = _psutil()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARKER) == marker:
                found.append(process)
    return found


def _alive(processes: Iterable[Any]) -> list[Any]:
    psutil = _psutil()
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def _wait(processes: Iterable[Any], seconds: float) -> list[Any]:
    """Waits for the end of processes, and returns those still alive after that time."""
    deadline = time.monotonic() + seconds
    while True:
        processes = list(processes)
        for process in processes:
            _reap(process.pid)
        processes = _alive(processes)
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(0.05)


def _reap(pid: int) -> None:
    # Where `up` itself goes on living (the demo, the tests), its children would stay as zombies.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _psutil() -> ModuleType:
    try:
        import psutil
    except ImportError as error:
        raise LocalError(
            "running a server on this machine needs more than the client: "
            "pip install 'dartboard[local]'"
        ) from error
    module: ModuleType = psutil
    return module
