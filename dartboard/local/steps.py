"""Commands that run to their end, and waiting for what runs in the background."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from dartboard.errors import LocalError
from dartboard.local.processes import Started, is_alive

_TAIL: Final = 15
_LOOK_EVERY: Final = 0.1
_Found = TypeVar("_Found")


class StartError(LocalError):
    """A part did not start; the message ends with the last lines of its log."""

    def __init__(self, part: str, what: str, log: Path, *, since: int = 0) -> None:
        """Reads the log.

        Args:
            part: Which part.
            what: What it did instead of starting.
            log: Its log.
            since: The size of the log before the start; older lines are not shown.
        """
        lines = tail(log, _TAIL, since=since)
        shown = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
        super().__init__(f"{part} {what}. The end of {log}:\n{shown}")
        self.part = part
        self.log = log


def run_to_end(
    part: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, timeout: float
) -> str:
    """Runs a command. A Ctrl-C meanwhile takes effect when it has ended, never in the middle.

    Args:
        part: Its name, for messages.
        command: The program and its arguments.
        environment: All of its environment.
        log: The file that its errors are appended to.
        timeout: Seconds after which it is killed.

    Returns:
        What it printed.

    Raises:
        StartError: It failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    since = size(log)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    with process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise StartError(part, f"took longer than {timeout:.0f} s", log, since=since) from None
        except BaseException:
            process.wait(timeout)
            raise
    if process.returncode != 0:
        raise StartError(part, f"ended with status {process.returncode}", log, since=since)
    return output.decode(errors="replace")


def wait_for(
    look: Callable[[], _Found | None],
    *,
    part: str,
    started: Started,
    log: Path,
    since: int,
    timeout: float,
) -> _Found:
    """Waits until a background process has done something.

    Args:
        look: Returns what was waited for, or None as long as it is not there.
        part: Its name, for messages.
        started: The process; its end ends the waiting.
        log: Its log.
        since: The size of the log before the start.
        timeout: Seconds to wait at most.

    Raises:
        StartError: It ended, or time was up.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found is not None:
            return found
        if not is_alive(started):
            raise StartError(part, "ended instead of starting", log, since=since)
        if time.monotonic() > deadline:
            raise StartError(part, f"was not ready after {timeout:.0f} s", log, since=since)
        time.sleep(_LOOK_EVERY)


def tail(log: Path, num_lines: int, *, since: int = 0) -> list[str]:
    """The last lines of a log, of what was written after its first `since` bytes."""
    try:
        with log.open("rb") as file:
            # The end of a log of any size, without reading all of it.
            file.seek(max(since, size(log) - 400 * num_lines))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-num_lines:]


def size(log: Path) -> int:
    """Bytes in a log; 0 when there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0
