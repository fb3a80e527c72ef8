"""The processes of a run: known by a marker in their environment, or by who started them."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Final

import psutil

from dartboard.local.processes import MARKER

_NAMED_BY_RAY: Final = "ray::"


class Census:
    """Remembers every process that was ever seen of a run.

    Ray's workers write their title over their environment, so that of them only their parents know
    whose they are; and a parent may be killed.

    Args:
        marker: What the processes have in their environment.
    """

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._seen: set[psutil.Process] = set()

    def take(self) -> list[psutil.Process]:
        """Looks again.

        Returns:
            All living processes of the run, but for this one.
        """
        children: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                children.setdefault(process.ppid(), []).append(process)
                if process.pid != os.getpid() and process.environ().get(MARKER) == self._marker:
                    self._seen.add(process)
        # Those of a process that is dead, and whose number another has by now, are not its own.
        todo = [process for process in self._seen if is_alive(process)]
        while todo:
            for child in children.get(todo.pop().pid, ()):
                if child not in self._seen:
                    self._seen.add(child)
                    todo.append(child)
        self._seen = {process for process in self._seen if is_alive(process)}
        return [*self._seen]


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process runs, or is stopped."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def runners(processes: Iterable[psutil.Process]) -> Iterator[tuple[psutil.Process, str]]:
    """The runners among processes, with the ids of their searches."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if "workers.runner" in command[:-1]:
                yield process, command[-1]


def trials(processes: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    """Those in which Ray runs trials."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            title = (process.cmdline() or [""])[0]
            if title.startswith(f"{_NAMED_BY_RAY}TrialTrainable"):
                yield process


def named(processes: Iterable[psutil.Process], name: str) -> Iterator[psutil.Process]:
    """Those that run the program of this name."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.name() == name:
                yield process


def kill(processes: Iterable[psutil.Process]) -> None:
    """Sends SIGKILL to all, and waits until they are gone."""
    killed = [*processes]
    for process in killed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(killed, timeout=30)
