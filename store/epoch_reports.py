"""What a runner writes of each epoch of a trial, and reads of all of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Double, Text, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from search_core.genotype import Genotype
from search_core.spec.algorithm import RelaxationForm
from store import architectures, events, leases
from store.leases import Lease
from store.models import Alphas, Event, Metric, Search, Trial
from store.recording import is_open


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
        .where(is_open(lease, trial_id), Trial.epoch < result.epoch)
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
