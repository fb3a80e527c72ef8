"""What `dartboard up` remembers of what it started, in `HOME/run/state.json`."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dartboard.errors import LocalError
from dartboard.local.processes import Started


@dataclass(frozen=True)
class Record:
    """A part that was started.

    Attributes:
        started: Its process.
        since: When it was started, in seconds since the epoch.
        address: Where others reach it, if they do.
    """

    started: Started
    since: float
    address: str | None = None


@dataclass(frozen=True)
class State:
    """The records of a home, by the name of the part."""

    file: Path

    def read(self) -> dict[str, Record]:
        """All records; none when there is no file, or one that cannot be read."""
        try:
            document = json.loads(self.file.read_text())
            return {name: _record(value) for name, value in document["parts"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def put(self, name: str, record: Record) -> None:
        """Adds or replaces a record."""
        self._write({**self.read(), name: record})

    def forget(self, name: str) -> None:
        """Removes a record; the file goes with the last one."""
        records = self.read()
        records.pop(name, None)
        if records:
            self._write(records)
        else:
            self.file.unlink(missing_ok=True)

    def _write(self, records: Mapping[str, Record]) -> None:
        parts = {name: asdict(record) for name, record in records.items()}
        write_atomically(self.file, json.dumps({"version": 1, "parts": parts}, indent=2) + "\n")


def write_atomically(file: Path, content: str | bytes) -> None:
    """Writes a file so that nobody ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(file)


@contextmanager
def alone(home: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keeps two `up` or `down` of one home apart; the second waits for the first.

    Args:
        home: The home.
        waiting: Called once if there is somebody to wait for.

    Raises:
        LocalError: The home cannot be written to.
    """
    folder = home / "run"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise LocalError(
            f"{home} cannot be written to ({error.strerror}); set DARTBOARD_HOME to a folder that "
            "can"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def new_record(started: Started, address: str | None = None) -> Record:
    """The record of a process that was started just now."""
    return Record(started, time.time(), address)


def _record(value: Mapping[str, Any]) -> Record:
    return Record(Started(**value["started"]), value["since"], value["address"])
