"""The processes of runners, some of which are started before there is work for them.

A runner loads Ray and joins the cluster before it asks what to run, and that takes seconds. A few
of them wait for their first line of standard input, which says what they are to run; one whose
dispatcher is gone meanwhile reads the end of it and ends.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from store.leases import Lease

_LOG = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 10.0
"""After a runner has ended before it was given anything, such as while Ray is away."""

_LET_START_SECONDS: Final = 20.0
"""After a runner was started for something: the next one would load while that one's trials start,
and take the cores that they start on."""

_LET_GO_SECONDS: Final = 5.0
"""Likewise after one was given something that had been there for so long that it, and processes for
its trials, should have loaded."""


@dataclass(frozen=True)
class Assignment:
    """What a runner is to run, as one line of its standard input.

    Attributes:
        search_id: The search.
        token: Of the lease.
        attempt: Of the search.
        log: The file that the process writes to from then on.
    """

    search_id: str
    token: str
    attempt: int
    log: str

    @classmethod
    def of(cls, lease: Lease, log: Path) -> Self:
        """A lease and where its runner writes."""
        return cls(str(lease.search_id), str(lease.token), lease.attempt, str(log))

    @property
    def lease(self) -> Lease:
        """The lease."""
        return Lease(UUID(self.search_id), UUID(self.token), self.attempt)

    def to_line(self) -> bytes:
        """The line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: str) -> Self | None:
        """What a line says; None at the end of the input."""
        return cls(**json.loads(line)) if line else None


class RunnerProcesses:
    """Starts runners, and keeps some ready.

    Args:
        url: The database.
        num_warm: How many to keep ready.
        log: Where those write that have nothing to run yet.
        clock: Seconds that only ever go up.
    """

    def __init__(
        self,
        url: str,
        *,
        num_warm: int,
        log: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._num_warm = num_warm
        self._log = log
        self._clock = clock
        self._warm: deque[tuple[subprocess.Popen[bytes], float]] = deque()
        """With the time at which each was started."""
        self._not_before = 0.0

    @property
    def num_ready(self) -> int:
        """Processes that wait for work, or will soon."""
        return len(self._warm)

    def start(self, lease: Lease, log: Path) -> subprocess.Popen[bytes]:
        """Gives a leased search to a process: to the one that is ready longest, if there is one.

        Raises:
            OSError: No process can be started.
        """
        assignment = Assignment.of(lease, log)
        while self._warm:
            process, started = self._warm.popleft()
            if process.poll() is None and _hand_over(process, assignment):
                has_loaded = self._clock() - started >= _LET_START_SECONDS
                self._hold(_LET_GO_SECONDS if has_loaded else _LET_START_SECONDS)
                return process
            _close_input(process)
            _LOG.warning("runner %d had ended before it was needed", process.pid)
        self._hold(_LET_START_SECONDS)
        process = self._spawn(log)
        if not _hand_over(process, assignment):
            raise OSError(f"the runner's process {process.pid} ended at once")
        return process

    def refill(self) -> None:
        """Starts processes until as many are ready as are kept, if it is time for that."""
        for ended in [each for each in self._warm if each[0].poll() is not None]:
            self._warm.remove(ended)
            _close_input(ended[0])
            self._hold(_PAUSE_SECONDS)
        try:
            while len(self._warm) < self._num_warm and self._clock() >= self._not_before:
                self._warm.append((self._spawn(self._log), self._clock()))
        except OSError as error:
            _LOG.warning("no runner can be kept ready: %s", error)
            self._hold(_PAUSE_SECONDS)

    def close(self) -> None:
        """Lets go of those that wait for work."""
        for process, _ in self._warm:
            _close_input(process)
            # It may be loading Ray, and does not look at its input yet.
            process.kill()
            process.wait()
        self._warm.clear()

    def _hold(self, seconds: float) -> None:
        """Makes none ready for some time from now, at least."""
        self._not_before = max(self._not_before, self._clock() + seconds)

    def _spawn(self, log: Path) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "workers.runner"],
                env={**os.environ, "DARTBOARD_DATABASE_URL": self._url},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # A group of its own: Ctrl-C on the dispatcher is the dispatcher's to hand on.
                start_new_session=True,
            )


def _hand_over(process: subprocess.Popen[bytes], assignment: Assignment) -> bool:
    """Tells a process what to run; whether it could be told."""
    assert process.stdin is not None
    try:
        process.stdin.write(assignment.to_line())
        process.stdin.close()
    except OSError:
        _close_input(process)
        process.kill()
        process.wait()
        return False
    return True


def _close_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # what could not be written is written again when it is closed
        process.stdin.close()
