"""The one function that moves a search from one state to another."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import events
from store.errors import IllegalTransitionError, NotFoundError
from store.models import Search, Trial
from store.states import (
    ENDED,
    SEARCH_TRANSITIONS,
    TRIAL_ENDED,
    JobKind,
    Reason,
    SearchStatus,
    TrialStatus,
)


def lock(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """The search's row, locked until the transaction ends.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Raises:
        NotFoundError: There is no such search.
    """
    search = session.scalars(
        select(Search)
        .where(Search.id == search_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if search is None or kind not in (None, search.kind):
        raise NotFoundError(kind or JobKind.SEARCH, search_id)
    return search


def transition(
    session: Session,
    search: Search,
    to: SearchStatus,
    *,
    reason: Reason | None = None,
    message: str = "",
    data: dict[str, Any] | None = None,
) -> None:
    """Moves a search, settles its trials, and appends the event, all in the caller's transaction.

    Args:
        session: The caller's session.
        search: The row, locked.
        to: The state to enter.
        reason: Why; needed for every end and every return to the queue.
        message: For people: what happened and what to do next.
        data: More details for the event.

    Raises:
        IllegalTransitionError: The table in `store.states` has no such step; nothing is changed.
    """
    status = SearchStatus(search.status)
    if to not in SEARCH_TRANSITIONS[status]:
        raise IllegalTransitionError(search.id, status, to, kind=JobKind(search.kind))
    # A query would flush the changes made so far, half of what the row's constraints demand.
    with session.no_autoflush:
        now = session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    _enter(search, status, to, now)
    search.reason = reason
    search.message = message
    session.flush()
    if to in (SearchStatus.QUEUED, SearchStatus.PAUSED):
        _settle_trials(session, search.id, TrialStatus.QUEUED, None, "")
    elif to is SearchStatus.CANCELLED:
        _settle_trials(session, search.id, TrialStatus.CANCELLED, reason, message)
    elif to is SearchStatus.FAILED:
        _settle_trials(session, search.id, TrialStatus.FAILED, reason, message)
    if status is SearchStatus.RUNNING or to is SearchStatus.QUEUED:
        # What it held is free for the next in line, or it is in line itself.
        events.notify(session, events.QUEUE_CHANNEL, search.id)
    kind = str(to)
    if to is SearchStatus.QUEUED:
        kind = "resumed" if status is SearchStatus.PAUSED else "requeued"
    details: dict[str, Any] = {"attempt": search.attempt, **(data or {})}
    if reason is not None:
        details |= {"reason": reason, "message": message}
    events.append(session, search.id, f"{search.kind}.{kind}", details)


def _enter(search: Search, status: SearchStatus, to: SearchStatus, now: datetime) -> None:
    search.status = to
    if status is SearchStatus.RUNNING:
        _let_go(search, now)
    if to in ENDED:
        search.ended_at = now
    elif status in ENDED:
        _reopen(search, now)
    elif status is SearchStatus.PAUSED:
        # Others came to wait while it did not.
        search.queued_at = now


def _let_go(search: Search, now: datetime) -> None:
    """Takes the lease, and what was asked of its holder, from a search that ran."""
    assert search.claimed_at is not None
    search.ran_seconds += (now - search.claimed_at).total_seconds()
    search.claimed_at = None
    search.lease_token = None
    search.lease_expires_at = None
    search.leased_by = None
    search.pause_requested_at = None
    search.preempt_requested_at = None


def _reopen(search: Search, now: datetime) -> None:
    """Makes a search that ended wait again, at the end of the queue, as if it were new."""
    search.ended_at = None
    search.queued_at = now
    search.cancel_requested_at = None
    search.failures = 0
    search.ran_seconds = 0.0
    search.recommended_hash = None
    search.recommendation = ""


def _settle_trials(
    session: Session, search_id: UUID, to: TrialStatus, reason: Reason | None, message: str
) -> None:
    # Trials that ended keep how they ended; the others share their search's fate.
    session.execute(
        update(Trial)
        .where(Trial.search_id == search_id, Trial.status.not_in(TRIAL_ENDED))
        .values(
            status=to,
            reason=reason,
            message=message,
            ended_at=func.clock_timestamp() if to in TRIAL_ENDED else None,
        )
        .execution_options(synchronize_session=False)
    )
