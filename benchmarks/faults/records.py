"""What the checks look at, as plain values: what the store has, and what it ought to have."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from store.states import JobKind

AlphaTables = Mapping[str, Any]


@dataclass(frozen=True)
class TrialRecord:
    """A trial's rows.

    Attributes:
        metrics: All of its points: name, step, value.
        alphas: All of its tables by the epoch after which they were.
    """

    id: UUID
    number: int
    status: str
    epoch: int
    epochs: int
    architecture: str | None
    result: Mapping[str, Any] | None
    metrics: tuple[tuple[str, int, float], ...]
    alphas: Mapping[int, AlphaTables]


@dataclass(frozen=True)
class EventRecord:
    """An event of a search."""

    number: int
    kind: str
    trial_id: UUID | None
    data: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True)
class JobRecord:
    """A search or training with all that the store knows of it."""

    id: UUID
    kind: JobKind
    name: str
    status: str
    attempt: int
    last_event: int
    recommended: str | None
    trials: tuple[TrialRecord, ...]
    events: tuple[EventRecord, ...]


@dataclass(frozen=True)
class ExpectedEpoch:
    """What an undisturbed trial reports after an epoch.

    Attributes:
        metrics: Those that another run has too, to the bit.
        of_the_machine: The names of the others.
        architecture: The hash of what it derives then.
    """

    metrics: Mapping[str, float]
    of_the_machine: frozenset[str]
    alphas: AlphaTables
    architecture: str


@dataclass(frozen=True)
class ExpectedTrial:
    """An undisturbed trial: its epochs from the first, and a training's result."""

    epochs: tuple[ExpectedEpoch, ...]
    result: Mapping[str, Any] | None
