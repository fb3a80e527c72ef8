"""Which trial a Tune run starts next."""

import threading
from typing import Any

from ray.tune.search import Searcher

from store.artifacts import ArtifactFolder
from store.jobs import JobSpec, kind_of
from store.room import Node, num_places
from workers.capacity import living_nodes
from workers.ray_run import KeptErrors
from workers.trainable import to_config
from workers.trials import TrialPlans


class Planner(Searcher):
    """Gives Tune the trials, one whenever it asks.

    Where later trials are drawn from what earlier ones came to, no more are given than the cluster
    can run at once: one that waits for room would be drawn too early.
    """

    def __init__(
        self,
        plans: TrialPlans,
        errors: KeptErrors,
        halt: threading.Event,
        logs: ArtifactFolder,
        attempt: int,
    ) -> None:
        super().__init__()
        self._halt = halt
        self._logs = logs
        self._attempt = attempt
        self._plans = plans
        self._errors = errors
        self._live: set[str] = set()
        self._allowed = plans.most_live or plans.num_open
        self._most_live = self._allowed

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What Tune's next trial runs; `FINISHED` after the last, None for not now."""
        if self._halt.is_set():
            return Searcher.FINISHED  # type: ignore[no-any-return]
        if len(self._live) >= self._most_live:
            return None
        with self._errors.kept():
            plans = self._plans.next()
        if plans is None:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        spec = plans[0].spec
        if self._plans.are_drawn_late:
            self._most_live = min(self._allowed, _num_places(spec))
        self._live.add(trial_id)
        return {"plan": to_config(plans, kind_of(spec), self._logs, self._attempt)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has ended, however it did."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is known of the trials is in the store."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # As of `Halting`.
        return (object, ())


def _num_places(spec: JobSpec) -> int:
    """Processes of the search that the living nodes can run at once, at least one."""
    resources = spec.resources
    need = Node(resources.cpus, resources.gpus, custom=resources.custom)
    return max(1, sum(num_places(node, need) for node in living_nodes()))
