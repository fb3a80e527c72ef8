"""The processes of a run: known by a marker in their environment, or by who started them."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import psutil

from dartboard.local.processes import MARKER

_TRIAL: Final = "ray::TrialTrainable"
"""How Ray's title of a trial's process begins."""
_RUNNER_LOG: Final = re.compile(r"([0-9a-f-]{36})-\d+\.log")


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


def runners(processes: Iterable[psutil.Process]) -> Iterator[tuple[psutil.Process, UUID]]:
    """The runners among processes that have a search, with its id.

    What a runner runs it is told by its dispatcher; its log, which it writes to, is named after it.
    """
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if "workers.runner" not in process.cmdline():
                continue
            for file in process.open_files():
                found = _RUNNER_LOG.fullmatch(Path(file.path).name)
                if found:
                    yield process, UUID(found[1])
                    break


def trials(processes: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    """Those in which Ray runs trials."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            title = (process.cmdline() or [""])[0]
            if title.startswith(_TRIAL):
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
