"""The logs of a search or training in the artifact storage: their names, and reading them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from search_core.storage import Storage

NAME_PATTERN: Final = r"^(runner|trial-[0-9]{1,9})-attempt-[0-9]{1,9}\.log$"
"""What a log can be called: nothing that leads out of its folder."""

_NAME: Final = re.compile(
    r"(runner|trial-(?P<trial>[0-9]{1,9}))-attempt-(?P<attempt>[0-9]{1,9})\.log"
)


@dataclass(frozen=True)
class KeptLog:
    """A log of a search or training.

    Attributes:
        name: Its name in the storage.
        trial: The number of the trial that wrote it; None of the runner's.
        attempt: Of the search.
        size: Bytes.
        modified_at: When it was last copied into the storage.
    """

    name: str
    trial: int | None
    attempt: int
    size: int
    modified_at: datetime


def runner_log(attempt: int) -> str:
    """The name of what the runner of an attempt wrote."""
    return f"runner-attempt-{attempt}.log"


def trial_log(number: int, attempt: int) -> str:
    """The name of what a trial's processes wrote in an attempt of its search."""
    return f"trial-{number}-attempt-{attempt}.log"


def kept(logs: Storage) -> Sequence[KeptLog]:
    """The logs of one folder: by attempt, the newest first; the runner's before the trials'.

    Raises:
        StorageError: The storage does not answer.
    """
    found = []
    for file in logs.list():
        if match := _NAME.fullmatch(file.name):
            trial = match["trial"]
            modified_at = datetime.fromtimestamp(file.modified_ns / 1e9, UTC)
            found.append(
                KeptLog(
                    file.name,
                    None if trial is None else int(trial),
                    int(match["attempt"]),
                    file.size,
                    modified_at,
                )
            )
    return sorted(found, key=lambda log: (-log.attempt, -1 if log.trial is None else log.trial))


def read(logs: Storage, name: str, *, tail: int | None = None) -> bytes:
    """What a log holds.

    Args:
        logs: The folder.
        name: One that matches `NAME_PATTERN`.
        tail: Only so many of its last lines; None for all.

    Raises:
        ValueError: No log has such a name.
        FileNotFoundError: There is none of this name.
        StorageError: The storage does not answer.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a log")
    content = logs.read(name)
    if tail is None:
        return content
    return b"".join(content.splitlines(keepends=True)[-tail:])
