"""From the open trials of a search to what each of them runs; draws what is not drawn yet."""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

from pydantic import ValidationError

from search_core.spec import Parameters, TrialPoint, point_spec, trial_points
from search_core.spec.points import canonical
from store.artifacts import ArtifactFolder
from store.jobs import JobSpec
from store.models import Trial
from store.states import TRIAL_ENDED, Reason, TrialStatus
from workers.suggestions import Fate, Observation, suggest
from workers.trials import TrialPlan

_TRIES: Final = 20

_BY_ITS_PARAMETERS: Final = frozenset({Reason.DIVERGED, Reason.OUT_OF_MEMORY, Reason.INVALID_INPUT})
"""Failures that the same parameters would meet again; TPE takes them for an accuracy of 0."""


class PlanStore(Protocol):
    """What is asked of the store, and told it, while plans are made."""

    def trials(self) -> Sequence[Trial]:
        """All trials of the search as they are now, by number."""

    def suggested(
        self, trial_ids: Sequence[UUID], parameters: Mapping[str, Any], epochs: int
    ) -> None:
        """Parameters were drawn for trials."""

    def failed(self, trial_id: UUID, reason: Reason, message: str) -> None:
        """A trial cannot run."""


class StoredPlans:
    """The open trials of a search, by number.

    Args:
        spec: The search's or training's.
        trials: Those that have to run.
        store: Told of what is drawn before it is handed out.
        folder: Where the checkpoints of the search are.
        data_root: Where the data sets are.
        most_live: How many processes may run at once; None for as many as there is room for.
    """

    def __init__(
        self,
        spec: JobSpec,
        trials: Sequence[Trial],
        store: PlanStore,
        *,
        folder: ArtifactFolder,
        data_root: Path,
        most_live: int | None = None,
    ) -> None:
        self.most_live = most_live
        self._spec = spec
        self._points = trial_points(spec.trials)
        self._waiting = deque(trials)
        self._store = store
        self._folder = folder
        self._data_root = data_root
        self.num_open = len(trials)
        self.are_drawn_late = any(trial.parameters is None for trial in trials)

    def next(self) -> Sequence[TrialPlan] | None:
        """See `TrialPlans`."""
        while self._waiting:
            first = self._waiting[0]
            stacked = [trial for trial in self._waiting if trial.stack == first.stack]
            self._waiting = deque(trial for trial in self._waiting if trial.stack != first.stack)
            # Of one point, so that the parameters are the same for all.
            recorded: Parameters | None = first.parameters
            parameters = self._draw_for(first) if recorded is None else recorded
            try:
                spec = point_spec(self._spec, parameters)
            except ValidationError as error:
                for trial in stacked:
                    self._store.failed(trial.id, Reason.INVALID_INPUT, _no_spec(error))
                continue
            return [
                TrialPlan(
                    trial.id,
                    trial.number,
                    trial.seed,
                    spec,
                    folder=self._folder / f"trial-{trial.number}",
                    data_root=self._data_root,
                )
                for trial in stacked
            ]
        return None

    def _draw_for(self, trial: Trial) -> Parameters:
        """Draws the parameters of a trial and of those that differ from it in the seed only."""
        rows = self._store.trials()
        num_seeds = len(self._spec.trials.seeds)
        alike = [row for row in rows if row.number // num_seeds == trial.number // num_seeds]
        drawn = next((row.parameters for row in alike if row.parameters is not None), None)
        if drawn is not None:
            # This one had failed before its turn came, and is retried.
            parameters: Parameters = drawn
        else:
            parameters = self._suggest(self._points[trial.number], rows)
        try:
            epochs = point_spec(self._spec, parameters).total_epochs
        except ValidationError:
            epochs = trial.epochs  # the trial fails with what is wrong
        self._store.suggested([row.id for row in alike], parameters, epochs)
        return parameters

    def _suggest(self, point: TrialPoint, rows: Sequence[Trial]) -> Parameters:
        """Asks TPE, and again if that is no valid spec or was tried before."""
        trials = self._spec.trials
        # What is best may differ between the combinations of the grid: each is searched by itself.
        tried = [
            _observe(row, trials.sample)
            for row in rows
            if row.parameters is not None and self._points[row.number].grid == point.grid
        ]
        observations = [each for each in tried if each is not None]
        seen = {
            canonical(row.parameters)
            for row in rows
            if row.parameters is not None and self._points[row.number].grid == point.grid
        }
        parameters: Parameters = {}
        for attempt in range(_TRIES):
            name = f"{trials.sampler_seed} {canonical(point.grid)} {point.sample} {attempt}"
            drawn = suggest(trials.sample, observations, num_samples=trials.num_samples, seed=name)
            parameters = {**point.grid, **drawn}
            if canonical(parameters) not in seen and self._is_valid(parameters):
                break
        return parameters

    def _is_valid(self, parameters: Parameters) -> bool:
        try:
            point_spec(self._spec, parameters)
        except ValidationError:
            return False
        return True


def _observe(row: Trial, paths: Mapping[str, Any]) -> Observation | None:
    """What TPE may learn from a trial; None from one that failed by no fault of its point."""
    assert row.parameters is not None
    drawn = {path: row.parameters[path] for path in paths}
    if row.status not in TRIAL_ENDED:
        return Observation(drawn, Fate.OPEN)
    if row.status == TrialStatus.FAILED:
        if row.reason in _BY_ITS_PARAMETERS:
            return Observation(drawn, Fate.FINISHED, row.epoch, 0.0)
        return None
    accuracy = row.metrics.get("validation_accuracy") or 0.0
    fate = Fate.STOPPED if row.status == TrialStatus.STOPPED else Fate.FINISHED
    return Observation(drawn, fate, row.epoch, accuracy)


def _no_spec(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return (
        f"Its parameters make no valid spec: {f'{place}: ' if place else ''}{first['msg']}. "
        "Narrow what is sampled, and submit again."
    )
