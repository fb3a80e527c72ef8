"""What the API says about a job, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self
from uuid import UUID

from service.schema_base import Answer, Time
from service.trials.schemas import TrialAnswer, TrialCounts
from store import queue
from store.models import Search, Trial
from store.states import JobKind, Reason, SearchStatus


class WaitingAnswer(Answer):
    """Where a queued search or training stands."""

    position: int
    """Its place in the queue, from 1."""
    why: str
    """Why it has not started."""
    estimated_start: Time | None
    """When it may start, at the pace of what runs; null where nothing lets it, or tells."""


class JobAnswer(Answer):
    """A submitted search or training and everything about its life."""

    kind: ClassVar[JobKind]

    id: UUID
    """Its id, a UUIDv7: ids sort by age."""
    owner: str
    """Whose it is."""
    name: str
    """For people; need not be unique."""
    status: SearchStatus
    """Where it is in its life."""
    reason: Reason | None
    """Why it ended or went back to the queue."""
    message: str
    """The same for people, with what to do next."""
    spec: dict[str, Any]
    """The full spec, with every default."""
    priority: int
    """Higher goes first in the queue."""
    labels: dict[str, str]
    """For finding it again."""
    attempt: int
    """How often it was started."""
    created_at: Time
    """When it was submitted."""
    started_at: Time | None
    """When it first started."""
    ended_at: Time | None
    """When it ended."""
    cancel_requested_at: Time | None
    """When its user asked to cancel it."""
    pause_requested_at: Time | None
    """When its user asked to pause it; only until it is paused."""
    preempt_requested_at: Time | None
    """When it was asked to make room for another; only until it has."""
    claimed_at: Time | None
    """When its present attempt began; null unless it runs."""
    ran_seconds: float
    """How long its attempts ran so far, without the one that runs now."""
    waiting: WaitingAnswer | None
    """While it is queued; null in the answer to a submission, which does not look at the queue."""
    counts: TrialCounts
    """How many of its trials have ended, and how."""
    trials: Sequence[TrialAnswer]
    """Its trials, by number."""

    @classmethod
    def of(cls, search: Search, trials: Sequence[Trial], waiting: queue.Waiting | None) -> Self:
        """The answer about a row, its trials and its place in the queue."""
        return cls(**cls.facts(search, trials, waiting))

    @classmethod
    def facts(
        cls, search: Search, trials: Sequence[Trial], waiting: queue.Waiting | None
    ) -> dict[str, Any]:
        """The fields of an answer; a kind that has more of them adds its own."""
        return {
            "id": search.id,
            "owner": search.owner,
            "name": search.name,
            "status": SearchStatus(search.status),
            "reason": None if search.reason is None else Reason(search.reason),
            "message": search.message,
            "spec": search.spec,
            "priority": search.priority,
            "labels": search.labels,
            "attempt": search.attempt,
            "created_at": search.created_at,
            "started_at": search.started_at,
            "ended_at": search.ended_at,
            "cancel_requested_at": search.cancel_requested_at,
            "pause_requested_at": search.pause_requested_at,
            "preempt_requested_at": search.preempt_requested_at,
            "claimed_at": search.claimed_at,
            "ran_seconds": search.ran_seconds,
            "waiting": None
            if waiting is None
            else WaitingAnswer(
                position=waiting.position,
                why=waiting.why,
                estimated_start=waiting.estimated_start,
            ),
            "counts": TrialCounts.of(trials),
            "trials": [TrialAnswer.of(trial) for trial in trials],
        }
