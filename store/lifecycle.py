"""The one function that moves a search from one state to another."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
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
    transition_all(session, [search], to, reason=reason, message=message, data=data)


def transition_all(
    session: Session,
    searches: Sequence[Search],
    to: SearchStatus,
    *,
    reason: Reason | None = None,
    message: str = "",
    data: dict[str, Any] | None = None,
    now: datetime | None = None,
) -> None:
    """As `transition`, for several searches in a few statements.

    `now` is the database's time, for whoever has asked for it.

    Raises:
        IllegalTransitionError: One of them has no such step; nothing is changed.
    """
    before = {search.id: SearchStatus(search.status) for search in searches}
    for search in searches:
        status = before[search.id]
        if to not in SEARCH_TRANSITIONS[status]:
            raise IllegalTransitionError(search.id, status, to, kind=JobKind(search.kind))
    if now is None:
        # A query would flush the changes made so far, half of what the rows' constraints demand.
        with session.no_autoflush:
            now = session.scalars(select(func.clock_timestamp())).one()
    for search in searches:
        _enter(search, before[search.id], to, now)
        search.reason = reason
        search.message = message
    session.flush()
    ids = [*before]
    if to in _TRIALS:
        given = (
            (None, "") if to in (SearchStatus.QUEUED, SearchStatus.PAUSED) else (reason, message)
        )
        _settle_trials(session, ids, _TRIALS[to], *given)
    # What they held is free for the next in line, or they are in line themselves.
    woken = [
        each for each in ids if before[each] is SearchStatus.RUNNING or to is SearchStatus.QUEUED
    ]
    events.notify_all(session, events.QUEUE_CHANNEL, woken)
    events.append_all(session, [_event(search, before, reason, data) for search in searches])


_TRIALS: Final = {
    SearchStatus.QUEUED: TrialStatus.QUEUED,
    SearchStatus.PAUSED: TrialStatus.QUEUED,
    SearchStatus.CANCELLED: TrialStatus.CANCELLED,
    SearchStatus.FAILED: TrialStatus.FAILED,
}
"""What becomes of trials that have not ended when their search enters a state."""


def _event(
    search: Search,
    before: Mapping[UUID, SearchStatus],
    reason: Reason | None,
    data: Mapping[str, Any] | None,
) -> events.NewEvent:
    kind = search.status
    if kind == SearchStatus.QUEUED:
        kind = "resumed" if before[search.id] is SearchStatus.PAUSED else "requeued"
    details: dict[str, Any] = {"attempt": search.attempt, **(data or {})}
    if reason is not None:
        details |= {"reason": reason, "message": search.message}
    return events.NewEvent(search.id, f"{search.kind}.{kind}", details)


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
    search.max_live = None
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
    session: Session,
    search_ids: Sequence[UUID],
    to: TrialStatus,
    reason: Reason | None,
    message: str,
) -> None:
    # Trials that ended keep how they ended; the others share their search's fate.
    session.execute(
        update(Trial)
        .where(Trial.search_id.in_(search_ids), Trial.status.not_in(TRIAL_ENDED))
        .values(
            status=to,
            reason=reason,
            message=message,
            ended_at=func.clock_timestamp() if to in TRIAL_ENDED else None,
        )
        .execution_options(synchronize_session=False)
    )
