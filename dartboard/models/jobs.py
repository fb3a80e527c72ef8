"""Searches and trainings, with their trials and logs."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from dartboard.models.base import Result, Time
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec


class Waiting(Result):
    """A queued search's place in the queue."""

    position: int
    """From 1."""
    why: str
    """What it waits for."""
    estimated_start: Time | None = None
    """At the pace of what runs; None where nothing lets it start, or tells when."""


class Recommendation(Result):
    """The architecture that a search recommends."""

    architecture: str
    """Its hash."""
    why: str
    """Why this one."""


class TestMeasurement(Result):
    """What the weights of one epoch are worth on test images."""

    __test__: ClassVar = False  # for pytest, which takes a class of this name for a test

    epoch: int
    loss: float | None
    accuracy: float
    """On the test split, as a fraction."""
    extra_accuracies: Mapping[str, float] = {}
    """On each further test set, by name."""


class TestResult(Result):
    """What a trial of a training came to."""

    __test__: ClassVar = False

    last: TestMeasurement
    """The weights after the last epoch."""
    best: TestMeasurement | None = None
    """Those of the best epoch by validation accuracy; None where no images were held out."""


class TrialCounts(Result):
    """How many trials there are: `completed + failed + pending` is always `total`."""

    total: int
    completed: int
    """Came to an architecture: at their last epoch, or stopped early."""
    failed: int
    """Ended without one: by an error, or cancelled."""
    pending: int
    """Wait or run."""


class Trial(Result):
    """One run of a search or of a training: a point, with one seed."""

    id: UUID
    search_id: UUID
    number: int
    """From 0 within the search."""
    seed: int
    parameters: Mapping[str, Any] | None = None
    """What it has in place of the spec's own values, by dotted path; None until a sampler that
    learns from other trials has drawn it."""
    status: str
    """queued, running, succeeded, stopped (early, by a scheduler), failed or cancelled."""
    reason: str | None = None
    message: str = ""
    epoch: int
    """Epochs completed."""
    epochs: int
    """Epochs in all."""
    metrics: Mapping[str, float | None] = {}
    """Values by name, of the last completed epoch."""
    best_validation_accuracy: float | None = None
    relaxation: str | None = None
    """How a search's trial computes its mixtures: fast, by a plan, or plain; None before it has
    trained, and of a training."""
    architecture: str | None = None
    """The hash of what it derived or trained, once it succeeded or was stopped."""
    result: TestResult | None = None
    """Of a training, once it succeeded: what it is worth on the test images."""
    started_at: Time | None = None
    ended_at: Time | None = None


class Log(Result):
    """A log that is kept of a search or training."""

    name: str
    trial: int | None = None
    """The number of the trial that wrote it; None of the runner's."""
    attempt: int
    """The attempt that it was written in, from 1."""
    size: int
    """Bytes that are kept."""
    modified_at: Time
    """When it was last copied into the storage."""


class Job(Result):
    """What a search and a training have in common."""

    id: UUID
    owner: str = "local"
    """Whose it is."""
    name: str
    status: str
    """queued, running, paused, succeeded, failed or cancelled."""
    reason: str | None = None
    """Why it ended, or why it went back to the queue."""
    message: str = ""
    spec: Mapping[str, Any]
    """The full spec, as JSON values."""
    priority: int = 0
    labels: Mapping[str, str] = {}
    attempt: int = 0
    """How often it has been started."""
    created_at: Time
    started_at: Time | None = None
    ended_at: Time | None = None
    cancel_requested_at: Time | None = None
    pause_requested_at: Time | None = None
    """Only until it is paused."""
    preempt_requested_at: Time | None = None
    """Only until it has made room for another."""
    claimed_at: Time | None = None
    """When its present attempt began; None unless it runs."""
    ran_seconds: float = 0.0
    """How long its attempts ran, without the one that runs now."""
    waiting: Waiting | None = None
    """While it is queued; None right after its submission: `Client.get` knows."""
    counts: TrialCounts | None = None
    """How many trials have ended, and how; None of a server that does not count."""
    trials: tuple[Trial, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it has succeeded, failed or been cancelled."""
        return self.ended_at is not None

    @property
    def best_validation_accuracy(self) -> float | None:
        """The best of all trials' epochs; None before the first one ended."""
        return max(
            (
                trial.best_validation_accuracy
                for trial in self.trials
                if trial.best_validation_accuracy is not None
            ),
            default=None,
        )


class Search(Job):
    """A submitted search."""

    recommended: Recommendation | None = None

    def parsed_spec(self) -> SearchSpec:
        """The spec, typed.

        Raises:
            pydantic.ValidationError: The server is newer and its spec has what this version lacks.
        """
        return SearchSpec.model_validate(dict(self.spec))


class Training(Job):
    """A submitted training from scratch; its trials have the results."""

    def parsed_spec(self) -> RetrainingSpec:
        """The spec, typed.

        Raises:
            pydantic.ValidationError: The server is newer and its spec has what this version lacks.
        """
        return RetrainingSpec.model_validate(dict(self.spec), strict=False)
