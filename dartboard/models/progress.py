"""What happens to a search, and what its trials measure: events, metrics, alphas."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dartboard.models.base import Result, Time


class Event(Result):
    """Something that happened to a search."""

    number: int
    """From 1 within the search, without a gap."""
    kind: str
    """A dotted name, such as `trial.epoch`."""
    trial_id: UUID | None = None
    data: Mapping[str, Any] = {}
    created_at: Time


class EventPage(Result):
    """A page of a search's events, oldest first."""

    items: tuple[Event, ...]
    last: int
    """The number of the search's newest event."""


class Point(Result):
    """One point of a metric's series."""

    step: int
    """The epoch, from 1."""
    value: float | None


class AlphaLabel(Result):
    """What a row or a column of alphas stands for."""

    text: str
    """For people."""
    facts: Mapping[str, Any]
    """The same for programs."""


class AlphaGroup(Result):
    """One table of a space: a row is a choice to make, a column a candidate for it."""

    rows: tuple[AlphaLabel, ...]
    columns: tuple[AlphaLabel, ...]


class AlphaTables(Result):
    """What the candidates weighed after an epoch."""

    step: int
    """The epoch, from 1."""
    weights: Mapping[str, tuple[tuple[float, ...], ...]]
    """By group, row by row."""


class AlphaSeries(Result):
    """What the candidates of a trial weigh, epoch by epoch."""

    trial_id: UUID
    last_step: int
    """The trial's last completed epoch."""
    groups: Mapping[str, AlphaGroup]
    """What rows and columns stand for."""
    items: tuple[AlphaTables, ...]
