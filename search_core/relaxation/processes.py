"""Compiling in processes of their own, which one process of a machine starts at a time."""

import fcntl
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import psutil

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_MOST: Final = 16
_MEMORY: Final = 2**30
"""Bytes that are free for each: 0.7 to 0.9 of them are taken, by PyTorch mostly."""
_SECONDS: Final = 600
_PATIENCE: Final = 120
_PAUSE: Final = 0.2


class Command(NamedTuple):
    """A module to run as a command.

    Attributes:
        module: Its name.
        arguments: Of its command line.
        reads: What is on its standard input.
    """

    module: str
    arguments: Sequence[str] = ()
    reads: str = ""


def most_at_once() -> int:
    """How many commands to run at the same time: as cores and memory allow, from 1 to 16."""
    # Not every system knows on which cores a process may run.
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    most_in_memory = int(psutil.virtual_memory().available) // _MEMORY
    return max(1, min(_MOST, num_cores or 1, most_in_memory))


@contextmanager
def alone_in(folder: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Waits until no other process of this machine is in here: one of them fills all cores.

    Args:
        folder: Where what is compiled is kept; made if it is not there.
        patience: Seconds to wait.

    Raises:
        TimeoutError: Another one still is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # On a networked disk a lock would hold on all machines, which have cores of their own.
    with (folder / f"dartboard-{platform.node()}.lock").open("w") as lock:
        deadline = time.monotonic() + patience
        while True:
            try:
                # Let go of when the file is closed, or its process ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has compiled for {patience} s") from None
                time.sleep(_PAUSE)
        yield


def run_all(commands: Sequence[Command]) -> bool:
    """Runs commands at the same time, and logs what those say that fail.

    Args:
        commands: One or more.

    Returns:
        Whether all of them ended well.
    """
    with ThreadPoolExecutor(len(commands)) as threads:
        return all(list(threads.map(_run, commands)))


def while_parent_lives(parts: Iterable[_T]) -> Iterator[_T]:
    """Parts of a program's work, as long as the process is there that has started it.

    Args:
        parts: All of them.
    """
    started_by = os.getppid()
    for part in parts:
        if os.getppid() != started_by:
            return
        yield part


def _run(command: Command) -> bool:
    # What this process imports from, and nothing of the folder that it happens to be in.
    path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    try:
        run = subprocess.run(
            [sys.executable, "-P", "-m", command.module, *command.arguments],
            input=command.reads,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _LOG.warning("%s was stopped after %d s", command.module, _SECONDS)
        return False
    if run.returncode:
        _LOG.warning("%s failed: %s", command.module, run.stderr.strip()[-2000:])
    return run.returncode == 0
