"""What the API says about logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from service.schema_base import Answer, Time
from store.logs import KeptLog


class LogAnswer(Answer):
    """A log: what the runner of an attempt wrote, or the processes of one of its trials."""

    name: str
    """Its name, for `.../logs/{name}`."""
    trial: int | None
    """The number of the trial that wrote it; null of the runner's."""
    attempt: int
    """The attempt of the search or training that it was written in, from 1."""
    size: int
    """Bytes that are kept; of a log of more than 4 MiB its end."""
    modified_at: Time
    """When it was last copied into the storage, by the storage's clock."""


class LogList(Answer):
    """The logs of a search or training: the newest attempt first, its runner before its trials."""

    items: list[LogAnswer]
    """All that are kept; none where nothing has run, or its logs are gone."""

    @classmethod
    def of(cls, logs: Iterable[KeptLog]) -> Self:
        """The answer about what the storage holds."""
        return cls(items=[LogAnswer.model_validate(log) for log in logs])
