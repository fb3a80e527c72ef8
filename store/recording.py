"""What a runner writes while it leases a search. Every write is guarded and can be repeated."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Double,
    Text,
    and_,
    cast,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from search_core.genotype import Genotype
from search_core.spec.algorithm import RelaxationForm
from store import architectures, events, leases, lifecycle
from store.leases import Lease
from store.models import Alphas, Event, Metric, Search, Trial
from store.states import TRIAL_ENDED, JobKind, Reason, SearchStatus, TrialStatus


@dataclass(frozen=True)
class EpochWarning:
    """Something to know about an epoch that is no error: a name for programs, and a sentence."""

    kind: str
    message: str


@dataclass(frozen=True)
class EpochResult:
    """What a trial reports at the end of an epoch.

    Attributes:
        epoch: Epochs completed, from 1.
        metrics: Values by name; `validation_accuracy` ranks the trials of a search.
        genotype: The architecture that the alphas would derive now, or the one that is trained.
        warnings: What a reader of the search should know about the epoch.
        alphas: What the candidates weigh by group, [choices to make, candidates]; a training has
            none.
        relaxation: What a search's mixtures are computed by after the epoch; None of a training.
    """

    epoch: int
    metrics: Mapping[str, float]
    genotype: Genotype
    warnings: tuple[EpochWarning, ...] = ()
    alphas: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    relaxation: RelaxationForm | None = None


@dataclass(frozen=True)
class RecordedEpoch:
    """An epoch of some trial that was recorded, as a scheduler has to know it."""

    trial_id: UUID
    epoch: int
    validation_accuracy: float | None


def open_trials(session: Session, lease: Lease) -> Sequence[Trial]:
    """The trials of the leased search that still have to run, by number.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    return session.scalars(
        select(Trial)
        .where(Trial.search_id == lease.search_id, Trial.status.not_in(TRIAL_ENDED))
        .order_by(Trial.number)
    ).all()


def all_trials(session: Session, lease: Lease) -> Sequence[Trial]:
    """The trials of the leased search, by number.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    return session.scalars(
        select(Trial).where(Trial.search_id == lease.search_id).order_by(Trial.number)
    ).all()


def recorded_epochs(session: Session, lease: Lease) -> Sequence[RecordedEpoch]:
    """The epochs of all trials of the leased search, in the order in which they were recorded.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    rows = session.execute(
        select(Event.trial_id, Event.data)
        .where(Event.search_id == lease.search_id, Event.kind == "trial.epoch")
        .order_by(Event.number)
    )
    return [
        RecordedEpoch(trial_id, data["epoch"], data["metrics"].get("validation_accuracy"))
        for trial_id, data in rows
    ]


def trials_suggested(
    session: Session,
    lease: Lease,
    trial_ids: Sequence[UUID],
    parameters: Mapping[str, Any],
    epochs: int,
) -> None:
    """Records what was drawn for trials, before any of them trains with it.

    Trials that already have parameters keep them.

    Args:
        session: The caller's session.
        lease: The lease that guards the write.
        trial_ids: The trials of one point, which differ in their seeds.
        parameters: The point's values by dotted path.
        epochs: How many epochs they make of it.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    for trial_id in trial_ids:
        changed = session.execute(
            update(Trial)
            .where(_is_open(lease, trial_id), Trial.parameters.is_(None))
            .values(parameters=dict(parameters), epochs=epochs)
            .returning(Trial.id)
        ).scalar_one_or_none()
        if changed is not None:
            data = {"parameters": dict(parameters), "epochs": epochs}
            events.append(session, lease.search_id, "trial.suggested", data, trial_id=trial_id)


def trial_starting(session: Session, lease: Lease, trial_id: UUID) -> None:
    """Records that a trial has its place on the cluster, and loads what it needs.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    events.append(session, lease.search_id, "trial.starting", trial_id=trial_id)


def trial_started(
    session: Session,
    lease: Lease,
    trial_id: UUID,
    *,
    from_epoch: int,
    node: str,
    pid: int,
    relaxation: RelaxationForm | None = None,
) -> None:
    """Records that a trial trains now, in a process on a node.

    Args:
        session: The caller's session.
        lease: The lease that guards the write.
        trial_id: The trial.
        from_epoch: Completed epochs of the checkpoint that it resumes from; 0 from the start.
        node: The node's host name.
        pid: The process there.
        relaxation: What a search's mixtures are computed by; None of a training.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    started = session.execute(
        update(Trial)
        .where(_is_open(lease, trial_id))
        .values(
            status=TrialStatus.RUNNING,
            reason=None,
            message="",
            relaxation=relaxation,
            started_at=func.coalesce(Trial.started_at, func.clock_timestamp()),
        )
        .returning(Trial.id)
    ).scalar_one_or_none()
    if started is None:
        return
    data: dict[str, Any] = {
        "attempt": lease.attempt,
        "from_epoch": from_epoch,
        "node": node,
        "pid": pid,
    }
    if relaxation is not None:
        data["relaxation"] = relaxation
    events.append(session, lease.search_id, "trial.started", data, trial_id=trial_id)


def epoch_ended(session: Session, lease: Lease, trial_id: UUID, result: EpochResult) -> None:
    """Records an epoch's metrics and alphas; an epoch that was recorded before changes nothing.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    search = leases.guard(session, lease)
    _put_metrics(session, trial_id, result)
    if result.alphas:
        table = {"trial_id": trial_id, "step": result.epoch, "weights": dict(result.alphas)}
        session.execute(insert(Alphas).values(table).on_conflict_do_nothing())
    accuracy = result.metrics.get("validation_accuracy")
    epochs = session.execute(
        update(Trial)
        .where(_is_open(lease, trial_id), Trial.epoch < result.epoch)
        .values(
            epoch=result.epoch,
            metrics=events.finite(result.metrics),
            relaxation=func.coalesce(result.relaxation, Trial.relaxation),
            best_validation_accuracy=func.greatest(Trial.best_validation_accuracy, accuracy),
        )
        .returning(Trial.epochs)
    ).scalar_one_or_none()
    if epochs is None:
        return
    # It got further than before: what made it crash on the way is not what keeps it from its end.
    search.failures = 0
    data: dict[str, Any] = {
        "epoch": result.epoch,
        "epochs": epochs,
        "metrics": dict(result.metrics),
        # Stored as well, so that the history of what the search would have derived can be read.
        "genotype_hash": architectures.put(session, result.genotype),
    }
    events.append(session, lease.search_id, "trial.epoch", data, trial_id=trial_id)
    _note_best(session, search, trial_id, accuracy, data)
    for warning in result.warnings:
        data = {"epoch": result.epoch, "kind": warning.kind, "message": warning.message}
        events.append(session, lease.search_id, "trial.warning", data, trial_id=trial_id)


def _put_metrics(session: Session, trial_id: UUID, result: EpochResult) -> None:
    # Two arrays, however many there are: a statement with parameters for each point is long, and
    # written anew each time.
    points = select(
        literal(trial_id),
        func.unnest(cast(list(result.metrics), ARRAY(Text))),
        literal(result.epoch),
        func.unnest(cast(list(result.metrics.values()), ARRAY(Double))),
    )
    columns = [Metric.trial_id, Metric.name, Metric.step, Metric.value]
    session.execute(insert(Metric).from_select(columns, points).on_conflict_do_nothing())


def _note_best(
    session: Session,
    search: Search,
    trial_id: UUID,
    accuracy: float | None,
    epoch: Mapping[str, Any],
) -> None:
    """Appends an event if no epoch of any trial of the search has been as good until now."""
    before = search.best_validation_accuracy
    if (
        accuracy is None
        or not math.isfinite(accuracy)
        or (before is not None and before >= accuracy)
    ):
        return
    search.best_validation_accuracy = accuracy
    data = {
        "validation_accuracy": accuracy,
        "before": before,
        "epoch": epoch["epoch"],
        "genotype_hash": epoch["genotype_hash"],
    }
    events.append(session, search.id, f"{search.kind}.best", data, trial_id=trial_id)


def trial_succeeded(
    session: Session,
    lease: Lease,
    trial_id: UUID,
    genotype: Genotype,
    result: Mapping[str, Any] | None = None,
) -> None:
    """Records what a trial came to.

    Args:
        session: The caller's session.
        lease: The lease that guards the write.
        trial_id: The trial.
        genotype: The architecture that it derived, or trained.
        result: Of a training: what the trained network is worth on the test images.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    architecture_hash = architectures.put(session, genotype)
    plain_result = None if result is None else events.finite(result)
    ended = session.execute(
        update(Trial)
        .where(_is_open(lease, trial_id))
        .values(
            status=TrialStatus.SUCCEEDED,
            reason=Reason.COMPLETED,
            architecture_hash=architecture_hash,
            result=plain_result,
            ended_at=func.clock_timestamp(),
        )
        .returning(Trial.id)
    ).scalar_one_or_none()
    if ended is not None:
        data: dict[str, Any] = {"architecture": architecture_hash}
        if plain_result is not None:
            data["result"] = plain_result
        events.append(session, lease.search_id, "trial.succeeded", data, trial_id=trial_id)


def trial_stopped(
    session: Session, lease: Lease, trial_id: UUID, genotype: Genotype, *, message: str
) -> None:
    """Records that a scheduler ended a trial early.

    Args:
        session: The caller's session.
        lease: The lease that guards the write.
        trial_id: The trial.
        genotype: What it had derived after its last epoch, or was given to train.
        message: What it was compared with, for people.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    architecture_hash = architectures.put(session, genotype)
    epoch = session.execute(
        update(Trial)
        .where(_is_open(lease, trial_id))
        .values(
            status=TrialStatus.STOPPED,
            reason=Reason.STOPPED_EARLY,
            message=message,
            architecture_hash=architecture_hash,
            ended_at=func.clock_timestamp(),
        )
        .returning(Trial.epoch)
    ).scalar_one_or_none()
    if epoch is not None:
        data = {"epoch": epoch, "architecture": architecture_hash, "message": message}
        events.append(session, lease.search_id, "trial.stopped", data, trial_id=trial_id)


def trial_failed(
    session: Session, lease: Lease, trial_id: UUID, *, reason: Reason, message: str
) -> None:
    """Records why a trial ended without a result.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    ended = session.execute(
        update(Trial)
        .where(_is_open(lease, trial_id))
        .values(
            status=TrialStatus.FAILED,
            reason=reason,
            message=message,
            ended_at=func.clock_timestamp(),
        )
        .returning(Trial.id)
    ).scalar_one_or_none()
    if ended is not None:
        data = {"reason": reason, "message": message}
        events.append(session, lease.search_id, "trial.failed", data, trial_id=trial_id)


def trial_interrupted(
    session: Session, lease: Lease, trial_id: UUID, *, reason: Reason, message: str
) -> None:
    """Records that a trial's process was lost and that it goes on from its checkpoint.

    Args:
        session: The caller's session.
        lease: The lease that guards the write.
        trial_id: The trial.
        reason: `node_lost` where its node went with it, else what ended the process.
        message: What is known about it, for people.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    leases.guard(session, lease)
    data = {"reason": reason, "message": message}
    events.append(session, lease.search_id, "trial.interrupted", data, trial_id=trial_id)


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


def _is_open(lease: Lease, trial_id: UUID) -> ColumnElement[bool]:
    """That the trial is one of the leased search's and has not ended."""
    return and_(
        Trial.id == trial_id,
        Trial.search_id == lease.search_id,
        Trial.status.not_in(TRIAL_ENDED),
    )
