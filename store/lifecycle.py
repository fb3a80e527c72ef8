"""The one function that moves a search from one state to another, and what users may ask of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import events
from store.errors import IllegalTransitionError, NotFoundError, NotRetryableError
from store.models import Search, Trial
from store.states import (
    ENDED,
    SEARCH_TRANSITIONS,
    TRIAL_COMPLETED,
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
    elif status in ENDED:
        # Runs again: it takes its place at the end of the queue, as if it were new.
        assert isinstance(now, datetime)
        search.ended_at = None
        search.queued_at = now
        search.failures = 0
        search.recommended_hash = None
        search.recommendation = ""
    session.flush()
    if to is SearchStatus.QUEUED:
        _settle_trials(session, search.id, TrialStatus.QUEUED, None, "")
    elif to is SearchStatus.CANCELLED:
        _settle_trials(session, search.id, TrialStatus.CANCELLED, reason, message)
    elif to is SearchStatus.FAILED:
        _settle_trials(session, search.id, TrialStatus.FAILED, reason, message)
    if status is SearchStatus.RUNNING or to is SearchStatus.QUEUED:
        # What it held is free for the next in line, or it is in line itself.
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


def retry_trial(session: Session, trial_id: UUID) -> Trial:
    """Queues a failed trial again, and its search too if that has ended. Idempotent.

    The trial keeps its parameters and goes on from its last checkpoint. Nothing else of the search
    runs again. One that waits or runs already is left as it is.

    Args:
        session: The caller's session.
        trial_id: The trial.

    Returns:
        The trial as it is now: queued, or running.

    Raises:
        NotFoundError: There is no such trial.
        NotRetryableError: It has its result, or it was cancelled.
    """
    search_id = session.scalar(select(Trial.search_id).where(Trial.id == trial_id))
    if search_id is None:
        raise NotFoundError("trial", trial_id)
    search = lock(session, search_id)
    trial = session.get_one(Trial, trial_id, populate_existing=True)
    if trial.status in TRIAL_COMPLETED:
        raise NotRetryableError(
            f"trial {trial_id} has {trial.status} and has its result; only a failed trial is run "
            f"again. To repeat it, submit a {search.kind} with its parameters"
        )
    if search.cancel_requested_at is not None:
        raise NotRetryableError(
            f"its user cancelled the {search.kind} {search_id} that trial {trial_id} belongs to; "
            "to run it after all, submit the spec again"
        )
    if trial.status != TrialStatus.FAILED:
        return trial
    details = {"reason": trial.reason, "message": trial.message}
    trial.status = TrialStatus.QUEUED
    trial.reason = None
    trial.message = ""
    trial.ended_at = None
    session.flush()
    events.append(session, search_id, "trial.retried", {"failed": details}, trial_id=trial_id)
    if search.status in ENDED:
        transition(
            session,
            search,
            SearchStatus.QUEUED,
            reason=Reason.RETRIED,
            message=f"Trial {trial.number} runs again; the others keep what they came to.",
        )
    session.refresh(trial)
    return trial


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
