"""How the run of a leased search ends: with a recommendation, or let go, or for good."""

import json
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import leases, lifecycle
from store.leases import Lease
from store.models import Search, Trial
from store.recording import open_trials, trial_failed
from store.states import TRIAL_ENDED, JobKind, Reason, SearchStatus, TrialStatus


def finish(session: Session, lease: Lease) -> SearchStatus | None:
    """Ends a search none of whose trials is left to run, and recommends an architecture.

    It recommends that of the trial with the highest validation accuracy after its last epoch; of
    equals, the first. Only trials that ran to their end are compared: one that was stopped early
    may look better than it would after all of its epochs. A training recommends none: to pick one
    of its trials by its test accuracy would be selecting on the test images.

    Returns:
        `succeeded` when a trial succeeded, `cancelled` when its user had asked, else `failed`; None
        when a trial has been queued again meanwhile, and the search goes on.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    search = leases.guard(session, lease)
    trials = session.scalars(
        select(Trial).where(Trial.search_id == search.id).order_by(Trial.number)
    ).all()
    if any(trial.status not in TRIAL_ENDED for trial in trials):
        return None
    succeeded = [trial for trial in trials if trial.status == TrialStatus.SUCCEEDED]
    others = _others(trials)
    if succeeded:
        if search.kind == JobKind.SEARCH:
            _recommend(search, succeeded)
        status, reason, message = SearchStatus.SUCCEEDED, Reason.COMPLETED, others
    elif search.cancel_requested_at is not None:
        status, reason, message = (
            SearchStatus.CANCELLED,
            Reason.CANCELLED_BY_USER,
            "Cancelled while it ran.",
        )
    else:
        status = SearchStatus.FAILED
        failed = [trial for trial in trials if trial.status == TrialStatus.FAILED]
        reasons = {Reason(trial.reason) for trial in failed if trial.reason is not None}
        reason = reasons.pop() if len(reasons) == 1 else Reason.TRIALS_FAILED
        told = {trial.message: trial.number for trial in reversed(failed)}
        told = dict(reversed(told.items()))
        message = (
            next(iter(told))
            if len(told) == 1
            else "\n".join(f"Trial {number}: {message}" for message, number in told.items())
        )
        if len(failed) < len(trials):
            message = f"No trial ran to its end: {others} {message}"
    lifecycle.transition(
        session,
        search,
        status,
        reason=reason,
        message=message,
        data=None if search.recommended_hash is None else {"recommended": search.recommended_hash},
    )
    return status


def halted(session: Session, lease: Lease) -> SearchStatus | None:
    """Lets go of a search whose trials have stopped between two epochs, because that was asked.

    Returns:
        `paused`, or `queued` when it makes room for another; `cancelled` when that was asked
        meanwhile; None when nothing of that kind is asked any more, and it goes on.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    search = leases.guard(session, lease)
    if search.cancel_requested_at is not None:
        cancelled(session, lease)
        return SearchStatus.CANCELLED
    if search.pause_requested_at is not None:
        status, reason = SearchStatus.PAUSED, Reason.PAUSED_BY_USER
        message = "Paused; resume it, and it goes on after the epochs that it has completed."
    elif search.preempt_requested_at is not None:
        status, reason = SearchStatus.QUEUED, Reason.PREEMPTED
        message = "Made room for one of a higher priority; it goes on from its last checkpoints."
    else:
        return None
    lifecycle.transition(session, search, status, reason=reason, message=message)
    return status


def time_is_up(session: Session, lease: Lease) -> SearchStatus:
    """Ends a search that ran for as long as its spec lets it: what has not finished fails.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    search = leases.guard(session, lease)
    message = (
        f"It had not finished when the {search.kind} had run for its time limit of "
        f"{search.time_limit:g} s. Retry it, and it goes on from its last checkpoint with the "
        "limit anew; or submit it with a larger time_limit."
    )
    for trial in open_trials(session, lease):
        trial_failed(session, lease, trial.id, reason=Reason.TIME_LIMIT, message=message)
    status = finish(session, lease)
    assert status is not None
    return status


def cancelled(session: Session, lease: Lease) -> None:
    """Ends a running search whose user asked for it.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    lifecycle.transition(
        session,
        leases.guard(session, lease),
        SearchStatus.CANCELLED,
        reason=Reason.CANCELLED_BY_USER,
        message="Cancelled while it ran.",
    )


def _others(trials: Sequence[Trial]) -> str:
    """How the trials ended that did not succeed; empty where all of them did."""
    parts = []
    for status, ended in (
        (TrialStatus.FAILED, "failed"),
        (TrialStatus.STOPPED, "stopped early"),
    ):
        count = sum(trial.status == status for trial in trials)
        if count:
            parts.append(f"{count} of {len(trials)} trials {ended}")
    return f"{', '.join(parts)}." if parts else ""


def _recommend(search: Search, succeeded: Sequence[Trial]) -> None:
    best = max(succeeded, key=lambda trial: trial.metrics.get("validation_accuracy") or 0.0)
    accuracy = best.metrics.get("validation_accuracy") or 0.0
    values = ", ".join(
        f"{path} = {f'{value:.4g}' if isinstance(value, float) else json.dumps(value)}"
        for path, value in (best.parameters or {}).items()
    )
    search.recommended_hash = best.architecture_hash
    search.recommendation = (
        f"Trial {best.number} (seed {best.seed}{', ' if values else ''}{values}) has the highest "
        f"validation accuracy of the {len(succeeded)} that succeeded: {accuracy:.4f}."
    )
