"""How far the trials of a search are, kept up to date from its events."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from dartboard.cli.points import trial_text
from dartboard.models import Event, Job, Trial

_NEWEST_WEIGHT: Final = 0.4


@dataclass
class TrialProgress:
    """One trial.

    Attributes:
        number: From 0 within the search.
        seed: Its seed.
        parameters: What it has in place of the spec's own values; None while it is not drawn.
        status: As in the API.
        epoch: Epochs completed.
        epochs: Epochs in all.
        metrics: Of the last completed epoch.
        pace: Seconds that an epoch takes, the newest counting most; None before the first.
        heard_at: The clock when the last epoch was heard of.
        is_loading: Whether it has its place on the cluster and does not train yet.
    """

    number: int
    seed: int
    parameters: Mapping[str, Any] | None
    status: str
    epoch: int
    epochs: int
    metrics: dict[str, float | None]
    pace: float | None = None
    heard_at: float | None = None
    is_loading: bool = False

    @classmethod
    def of(cls, trial: Trial) -> "TrialProgress":
        """A trial as the server tells it."""
        return cls(
            number=trial.number,
            seed=trial.seed,
            parameters=trial.parameters,
            status=trial.status,
            epoch=trial.epoch,
            epochs=trial.epochs,
            metrics=dict(trial.metrics),
            pace=trial.metrics.get("seconds"),
        )

    @property
    def name(self) -> str:
        """Its number and, in parentheses, what makes it differ from the others."""
        return trial_text(self.number, self.seed, self.parameters)

    @property
    def state(self) -> str:
        """Its status, or `starting`, which the API counts as queued."""
        return "starting" if self.is_loading and self.status == "queued" else self.status

    def seconds_left(self, now: float) -> float | None:
        """An estimate from the pace so far; None while there is nothing to estimate from."""
        if self.status != "running" or self.pace is None:
            return None
        since = 0.0 if self.heard_at is None else min(now - self.heard_at, self.pace)
        return max((self.epochs - self.epoch) * self.pace - since, 0.0)


@dataclass(frozen=True)
class Note:
    """A warning about a trial: the newest of its kind."""

    trial: TrialProgress
    epoch: int
    message: str

    def __str__(self) -> str:
        """As people read it."""
        return f"trial {self.trial.name}, epoch {self.epoch}: {self.message}"


@dataclass
class SearchProgress:
    """A search and its trials, by number.

    Attributes:
        search: As the server told it last.
        status: Newer than that, from the events.
        trials: By id.
        notes: The newest warning of each trial and kind.
    """

    search: Job
    status: str = ""
    trials: dict[UUID, TrialProgress] = field(default_factory=dict)
    notes: dict[tuple[UUID, str], Note] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Takes the trials over."""
        self.update(self.search)

    def update(self, search: Job) -> None:
        """Takes a newer state of the whole search; the measured pace of its trials is kept."""
        self.search = search
        self.status = search.status
        before = self.trials
        self.trials = {trial.id: TrialProgress.of(trial) for trial in search.trials}
        for trial_id, trial in self.trials.items():
            if trial_id not in before:
                continue
            if before[trial_id].pace is not None:
                trial.pace = before[trial_id].pace
            trial.is_loading = before[trial_id].is_loading and search.status == "running"

    def apply(self, event: Event) -> None:
        """Takes an event. One that the state already contains changes nothing."""
        what, _, happened = event.kind.partition(".")
        if happened == "best":
            return  # its epoch has told the accuracy
        if what in ("search", "training"):
            self._apply_to_search(happened)
        if event.trial_id is not None and event.trial_id in self.trials:
            self._apply_to_trial(event.trial_id, happened, event)

    def _apply_to_trial(self, trial_id: UUID, happened: str, event: Event) -> None:
        trial = self.trials[trial_id]
        if happened == "warning":
            data = event.data
            self.notes[trial_id, data["kind"]] = Note(trial, data["epoch"], data["message"])
            return
        trial.is_loading = happened == "starting"
        if happened == "started":
            trial.status = "running"
        elif happened in ("interrupted", "retried"):
            trial.status = "queued"
        elif happened == "suggested":
            trial.parameters = event.data["parameters"]
            trial.epochs = event.data["epochs"]
        elif happened in ("succeeded", "stopped", "failed"):
            trial.status = happened
        elif happened == "epoch" and event.data["epoch"] > trial.epoch:
            self._apply_epoch(trial, event)

    def _apply_to_search(self, happened: str) -> None:
        if happened == "changed":
            return
        statuses = {
            "requeued": "queued",
            "resumed": "queued",
            "cancel_requested": "cancelling",
            "pause_requested": "pausing",
            "preempt_requested": "making room",
            "pause_withdrawn": "running",
        }
        self.status = statuses.get(happened, happened)
        if happened in ("requeued", "paused"):
            for trial in self.trials.values():
                trial.is_loading = False

    @staticmethod
    def _apply_epoch(trial: TrialProgress, event: Event) -> None:
        trial.status = "running"
        trial.epoch = event.data["epoch"]
        metrics = dict(event.data["metrics"])
        if ("finalist" in metrics) != ("finalist" in trial.metrics):
            trial.pace = None  # a finalist's epochs take another time than the search's own
        trial.metrics = metrics
        trial.heard_at = time.monotonic()
        seconds = trial.metrics.get("seconds")
        if seconds is not None:
            old = seconds if trial.pace is None else trial.pace
            trial.pace = _NEWEST_WEIGHT * seconds + (1 - _NEWEST_WEIGHT) * old
