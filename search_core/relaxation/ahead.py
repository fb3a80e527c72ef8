"""Compiling ahead: in processes of their own, by one process of a machine at a time."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_MOST_PROCESSES: Final = 16
_SECONDS: Final = 600
_NICENESS: Final = 10


class Program(NamedTuple):
    """A module to run as a program.

    Attributes:
        module: Its name.
        arguments: Of its command line.
        reads: What it reads.
    """

    module: str
    arguments: Sequence[str] = ()
    reads: str = ""


def num_processes() -> int:
    """How many may run at the same time: as many as there are cores, up to 16."""
    return min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine is in here: one of them fills all cores.

    Args:
        folder: Where what is compiled is kept; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dartboard.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed, or its process ends
        yield


def run_all(programs: Sequence[Program]) -> bool:
    """Runs programs at the same time.

    Args:
        programs: One or more.

    Returns:
        Whether all of them ended well.
    """
    with ThreadPoolExecutor(len(programs)) as threads:
        return all(threads.map(_run, programs))


def give_way() -> None:
    """Lets other trials go on, where programs fill all cores."""
    os.nice(_NICENESS)


def _run(program: Program) -> bool:
    try:
        run = subprocess.run(
            [sys.executable, "-m", program.module, *program.arguments],
            input=program.reads,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0
