"""What the API says about trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Self
from uuid import UUID

from pydantic import JsonValue

from search_core.spec.algorithm import RelaxationForm
from service.schema_base import Answer, Time
from store.models import Metric, Trial
from store.states import TRIAL_COMPLETED, TRIAL_ENDED, Reason, TrialStatus


class TestMeasurement(Answer):
    """What the weights of one epoch are worth on test images."""

    epoch: int
    """The epoch, from 1."""
    loss: float | None
    """Mean cross-entropy on the test split, in nats; null where it was not finite."""
    accuracy: float
    """Fraction of the test split that is classified right."""
    extra_accuracies: dict[str, float]
    """The same fraction on each further test set, by name."""


class TestResult(Answer):
    """What a training came to, measured once, after its last epoch. It has chosen nothing."""

    last: TestMeasurement
    """The weights after the last epoch."""
    best: TestMeasurement | None
    """The weights of the epoch with the best validation accuracy, of equals the one with the lowest
    validation loss; null where no images are held out."""


class TrialAnswer(Answer):
    """One run: a point with a seed, how far it is, and the architecture that it came to."""

    id: UUID
    """The trial's id."""
    search_id: UUID
    """The search, or the training, that it belongs to."""
    number: int
    """Its number within the search, from 0."""
    seed: int
    """Seed of its split, initial weights and batch order."""
    parameters: dict[str, JsonValue] | None
    """What it has in place of the spec's own values, by dotted path; empty where nothing varies.
    Null until a sampler that learns from other trials has drawn it."""
    status: TrialStatus
    """Where it is in its life."""
    reason: Reason | None
    """Why it ended or was put back."""
    message: str
    """The same for people, with what to do next."""
    epoch: int
    """Epochs completed."""
    epochs: int
    """Epochs in all; of a trial that is not drawn yet, the most that it may have."""
    metrics: dict[str, float | None]
    """Figures of the last completed epoch; null where one was not finite."""
    best_validation_accuracy: float | None
    """The highest validation accuracy of any epoch."""
    relaxation: RelaxationForm | None
    """How a search's trial computes its mixtures: `fast` by a plan, or `plain`, one operation at a
    time, as its spec says, or since a plan failed, which a `trial.warning` tells. Null before it
    has trained, and of a training."""
    architecture: str | None
    """Hash of the architecture that it derived or trained, once it succeeded or was stopped."""
    result: TestResult | None
    """Of a training, once it succeeded: what it is worth on the test images."""
    started_at: Time | None
    """When it first trained."""
    ended_at: Time | None
    """When it ended."""

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """The answer about a row."""
        return cls(
            id=trial.id,
            search_id=trial.search_id,
            number=trial.number,
            seed=trial.seed,
            parameters=trial.parameters,
            status=TrialStatus(trial.status),
            reason=None if trial.reason is None else Reason(trial.reason),
            message=trial.message,
            epoch=trial.epoch,
            epochs=trial.epochs,
            metrics=trial.metrics,
            best_validation_accuracy=trial.best_validation_accuracy,
            relaxation=trial.relaxation,
            architecture=trial.architecture_hash,
            result=None if trial.result is None else TestResult.model_validate(trial.result),
            started_at=trial.started_at,
            ended_at=trial.ended_at,
        )


class TrialCounts(Answer):
    """How many trials there are: `completed + failed + pending` is always `total`."""

    total: int
    """All of them; it does not change from the submission on."""
    completed: int
    """Came to an architecture: at their last epoch, or stopped early by their scheduler."""
    failed: int
    """Ended without one: by an error, or cancelled."""
    pending: int
    """Wait or run."""

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Self:
        """The counts of a search's trials."""
        statuses = [TrialStatus(trial.status) for trial in trials]
        return cls(
            total=len(statuses),
            completed=sum(status in TRIAL_COMPLETED for status in statuses),
            failed=sum(status in TRIAL_ENDED - TRIAL_COMPLETED for status in statuses),
            pending=sum(status not in TRIAL_ENDED for status in statuses),
        )


class TrialList(Answer):
    """The trials of a search, by number."""

    items: Sequence[TrialAnswer]
    """All of them."""


class MetricPoint(Answer):
    """A value at the end of an epoch."""

    step: int
    """The epoch, from 1."""
    value: float | None
    """Null where it was not finite."""


class MetricSeries(Answer):
    """A trial's figures over its epochs."""

    trial_id: UUID
    """The trial."""
    series: dict[str, list[MetricPoint]]
    """By name, each in the order of steps."""

    @classmethod
    def of(cls, trial_id: UUID, metrics: Iterable[Metric]) -> Self:
        """The answer about rows, which come by name and step."""
        series: dict[str, list[MetricPoint]] = {}
        for metric in metrics:
            point = MetricPoint(step=metric.step, value=metric.value)
            series.setdefault(metric.name, []).append(point)
        return cls(trial_id=trial_id, series=series)

    def to_csv(self) -> str:
        """The same as CSV with the columns name, step and value, empty where it was not finite."""
        lines = ["name,step,value"]
        for name, points in self.series.items():
            for point in points:
                finite = point.value is not None and math.isfinite(point.value)
                lines.append(
                    f"{name},{point.step},{point.value!r}" if finite else f"{name},{point.step},"
                )
        return "\n".join(lines) + "\n"
