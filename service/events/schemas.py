"""What the API says about events."""

from collections.abc import Sequence
from typing import Any, Self
from uuid import UUID

from service.schema_base import Answer, Time
from store.models import Event


class EventAnswer(Answer):
    """Something that happened to a search."""

    number: int
    """Counts from 1 within the search, without a gap."""
    kind: str
    """What happened, such as `trial.epoch`."""
    trial_id: UUID | None
    """The trial that it happened to, if it was one."""
    data: dict[str, Any]
    """The details."""
    created_at: Time
    """When it happened."""

    @classmethod
    def of(cls, event: Event) -> Self:
        """The answer about a row."""
        return cls(
            number=event.number,
            kind=event.kind,
            trial_id=event.trial_id,
            data=event.data,
            created_at=event.created_at,
        )


class EventPage(Answer):
    """A page of a search's events, oldest first."""

    items: Sequence[EventAnswer]
    """At most `limit` of them."""
    last: int
    """Number of the search's last event: the log is read to its end when an item has it."""
