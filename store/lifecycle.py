"""The one function that moves a search from one state to another, and what users may ask of it."""

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
    search.status = to
    search.reason = reason
    search.message = message
    if to is not SearchStatus.RUNNING:
        search.lease_token = None
        search.lease_expires_at = None
        search.leased_by = None
    if to in ENDED:
        search.ended_at = now
    session.flush()
    if to is SearchStatus.QUEUED:
        _settle_trials(session, search.id, TrialStatus.QUEUED, None, "")
    elif to is SearchStatus.CANCELLED:
        _settle_trials(session, search.id, TrialStatus.CANCELLED, reason, message)
    elif to is SearchStatus.FAILED:
        _settle_trials(session, search.id, TrialStatus.FAILED, reason, message)
    if status is SearchStatus.RUNNING:
        # What it held is free for the next in line.
        events.notify(session, events.QUEUE_CHANNEL, search.id)
    kind = "requeued" if to is SearchStatus.QUEUED else str(to)
    details: dict[str, Any] = {"attempt": search.attempt, **(data or {})}
    if reason is not None:
        details |= {"reason": reason, "message": message}
    events.append(session, search.id, f"{search.kind}.{kind}", details)


def request_cancel(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """Cancels a search: at once when it waits, within seconds when it runs. Idempotent.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Returns:
        The search as it is now: cancelled, or running with `cancel_requested_at` set.

    Raises:
        NotFoundError: There is no such search.
        IllegalTransitionError: It has already succeeded or failed.
    """
    search = lock(session, search_id, kind)
    if search.status == SearchStatus.CANCELLED:
        return search
    if search.status in ENDED:
        raise IllegalTransitionError(
            search_id,
            SearchStatus(search.status),
            SearchStatus.CANCELLED,
            kind=JobKind(search.kind),
        )
    if search.cancel_requested_at is None:
        search.cancel_requested_at = session.scalars(select(func.clock_timestamp())).one()
        session.flush()
        expires = search.lease_expires_at
        if expires is None or expires < search.cancel_requested_at:
            # Nobody runs it, or whoever did was not heard of for a whole lease.
            transition(
                session,
                search,
                SearchStatus.CANCELLED,
                reason=Reason.CANCELLED_BY_USER,
                message="Cancelled while nobody ran it.",
            )
        else:
            events.append(session, search_id, f"{search.kind}.cancel_requested")
            events.notify(session, events.QUEUE_CHANNEL, search_id)
    session.refresh(search)
    return search


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
