"""What a runner writes of the trials that it leases. Every write is guarded and can be repeated.

Of their epochs it writes by `store.epoch_reports`, of the run's end by `store.endings`.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from search_core.genotype import Genotype
from search_core.spec.algorithm import RelaxationForm
from store import architectures, events, leases
from store.leases import Lease
from store.models import Trial
from store.states import TRIAL_ENDED, Reason, TrialStatus


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
            .where(is_open(lease, trial_id), Trial.parameters.is_(None))
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
        .where(is_open(lease, trial_id))
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
        .where(is_open(lease, trial_id))
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
        .where(is_open(lease, trial_id))
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
        .where(is_open(lease, trial_id))
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


def is_open(lease: Lease, trial_id: UUID) -> ColumnElement[bool]:
    """That the trial is one of the leased search's and has not ended."""
    return and_(
        Trial.id == trial_id,
        Trial.search_id == lease.search_id,
        Trial.status.not_in(TRIAL_ENDED),
    )
