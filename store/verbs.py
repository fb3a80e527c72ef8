"""What users may ask of a search: cancel, pause, resume, retry, change, delete.

Each can be asked twice, and does not mind what others ask at the same time: it locks the search,
looks where it is now, and either takes one step or leaves it as it is.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import events
from store.access import TEAM
from store.errors import IllegalTransitionError, NotFoundError, NotRetryableError
from store.lifecycle import lock, transition
from store.models import DeletedSearch, Search, Trial
from store.states import (
    ENDED,
    TRIAL_COMPLETED,
    JobKind,
    Reason,
    SearchStatus,
    TrialStatus,
)

_UNFINISHED = (TrialStatus.FAILED, TrialStatus.CANCELLED)


def request_cancel(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """Cancels a search: at once when nobody runs it, within seconds when it runs. Idempotent.

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
        raise _illegal(search, SearchStatus.CANCELLED)
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
            _ask_runner(session, search, "cancel_requested")
    session.refresh(search)
    return search


def request_pause(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """Makes a search hold nothing: at once when it waits, after its epochs when it runs.

    Idempotent. What runs completes the epoch that it is in, so that nothing is computed twice.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Returns:
        The search as it is now: paused, or running with `pause_requested_at` set.

    Raises:
        NotFoundError: There is no such search.
        IllegalTransitionError: It has ended, or is about to be cancelled.
    """
    search = lock(session, search_id, kind)
    if search.status == SearchStatus.PAUSED:
        return search
    if search.status in ENDED or search.cancel_requested_at is not None:
        raise _illegal(search, SearchStatus.PAUSED)
    if search.status == SearchStatus.QUEUED:
        transition(
            session,
            search,
            SearchStatus.PAUSED,
            reason=Reason.PAUSED_BY_USER,
            message="Paused while it waited.",
        )
    elif search.pause_requested_at is None:
        search.pause_requested_at = session.scalars(select(func.clock_timestamp())).one()
        session.flush()
        _ask_runner(session, search, "pause_requested")
    session.refresh(search)
    return search


def resume(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """Lets a paused search wait for its turn again, and takes back a pause that was asked for.

    Idempotent: one that waits or runs is left as it is.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Returns:
        The search as it is now: queued, or running.

    Raises:
        NotFoundError: There is no such search.
        IllegalTransitionError: It has ended.
    """
    search = lock(session, search_id, kind)
    if search.status in ENDED:
        raise _illegal(search, SearchStatus.QUEUED)
    if search.status == SearchStatus.PAUSED:
        transition(
            session,
            search,
            SearchStatus.QUEUED,
            reason=Reason.RESUMED,
            message="It goes on after the epochs that it has completed.",
        )
    elif search.pause_requested_at is not None:
        search.pause_requested_at = None
        session.flush()
        _ask_runner(session, search, "pause_withdrawn")
    session.refresh(search)
    return search


def retry(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """Runs what did not finish of a search that ended. Idempotent.

    Trials that failed or were cancelled keep their parameters and go on from their last
    checkpoints; those that completed keep what they came to. Its time limit begins anew. One that
    waits, runs or is paused is left as it is.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Returns:
        The search as it is now.

    Raises:
        NotFoundError: There is no such search.
        NotRetryableError: All of it finished, or it is about to be cancelled.
    """
    search = lock(session, search_id, kind)
    if search.status not in ENDED:
        if search.cancel_requested_at is not None:
            raise NotRetryableError(
                f"{search.kind} {search_id} is about to be cancelled; retry it once it is"
            )
        return search
    unfinished = session.scalars(
        select(Trial)
        .where(Trial.search_id == search_id, Trial.status.in_(_UNFINISHED))
        .order_by(Trial.number)
    ).all()
    if not unfinished:
        raise NotRetryableError(
            f"every trial of {search.kind} {search_id} finished; to repeat it, submit its spec"
        )
    for trial in unfinished:
        _reopen(session, trial)
    count = "1 trial" if len(unfinished) == 1 else f"{len(unfinished)} trials"
    transition(
        session,
        search,
        SearchStatus.QUEUED,
        reason=Reason.RETRIED,
        message=f"{count} that did not finish will run again; others keep what they came to.",
    )
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
            "to run it after all, retry that, or submit the spec again"
        )
    if trial.status != TrialStatus.FAILED:
        return trial
    _reopen(session, trial)
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


def change(
    session: Session, search_id: UUID, changes: Mapping[str, Any], kind: JobKind | None = None
) -> Search:
    """Changes a search's name, labels or priority, whatever state it is in.

    Args:
        session: The caller's session.
        search_id: The search.
        changes: Columns and their new values.
        kind: What it has to be; None takes either.

    Returns:
        The search as it is now. Where nothing differs, nothing is recorded.

    Raises:
        NotFoundError: There is no such search.
    """
    search = lock(session, search_id, kind)
    differing = {name: new for name, new in changes.items() if getattr(search, name) != new}
    if differing:
        for name, new in differing.items():
            setattr(search, name, new)
        session.flush()
        events.append(session, search_id, f"{search.kind}.changed", differing)
        if "priority" in differing:
            events.notify(session, events.QUEUE_CHANNEL, search_id)
        session.refresh(search)
    return search


def delete(session: Session, search_id: UUID, kind: JobKind | None = None) -> None:
    """Removes a search that has ended, with its trials, metrics and events. Idempotent.

    A dispatcher removes its checkpoints and logs. Architectures stay: they are nobody's.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Raises:
        NotFoundError: There is no such search, nor was there lately.
        IllegalTransitionError: It has not ended.
    """
    try:
        search = lock(session, search_id, kind)
    except NotFoundError:
        deleted = session.get(DeletedSearch, search_id)
        if deleted is not None and kind in (None, deleted.kind):
            return
        raise
    if search.status not in ENDED:
        raise IllegalTransitionError(
            search_id, SearchStatus(search.status), "deleted", kind=JobKind(search.kind)
        )
    team = search.labels.get(TEAM)
    session.add(DeletedSearch(id=search.id, kind=search.kind, owner=search.owner, team=team))
    session.flush()
    session.execute(delete_rows(Search).where(Search.id == search_id))
    session.expunge(search)


def _reopen(session: Session, trial: Trial) -> None:
    details = {"status": trial.status, "reason": trial.reason, "message": trial.message}
    session.execute(
        update(Trial)
        .where(Trial.id == trial.id)
        .values(status=TrialStatus.QUEUED, reason=None, message="", ended_at=None)
    )
    events.append(session, trial.search_id, "trial.retried", {"failed": details}, trial_id=trial.id)


def _ask_runner(session: Session, search: Search, what: str) -> None:
    events.append(session, search.id, f"{search.kind}.{what}")
    events.notify(session, events.QUEUE_CHANNEL, search.id)


def _illegal(search: Search, to: SearchStatus) -> IllegalTransitionError:
    return IllegalTransitionError(
        search.id, SearchStatus(search.status), to, kind=JobKind(search.kind)
    )
