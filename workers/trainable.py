"""A trial as Ray Tune sees it: a process on some node that takes steps."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.result import DONE

from store.jobs import SPECS, JobSpec
from store.states import JobKind
from workers.failures import explain
from workers.reports import to_report

if TYPE_CHECKING:
    from workers.trial_run import TrialRun


class TrialTrainable(tune.Trainable):
    """Trains one epoch a step, after a first step that says where it starts from.

    The checkpoints are the trial's own (`search_core.checkpoints`), not Tune's: they are written
    atomically with a digest, and a new runner finds them without Tune's state.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What the trial occupies on its node, as its spec says."""
        resources = _spec(config["plan"]).resources
        return tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus}])

    def setup(self, config: dict[str, Any]) -> None:
        """Takes Tune's configuration; the work of starting belongs to the first step.

        Args:
            config: `plan` holds the job's `kind` and its `spec` as JSON, and the trial's `seed` and
                folders.
        """
        self._plan: dict[str, Any] = config["plan"]
        self._run: TrialRun | None = None

    def step(self) -> dict[str, Any]:
        """Starts, or trains an epoch.

        Returns:
            `started` with the epoch, node and relaxation, and the epoch that was resumed from, if
            any; then
            `report` for every epoch, and after the last one `derived`, the genotype, and
            `test_result`, if it is a training; `failure` in place of all these when the trial
            cannot go on.
            An error that another try may mend is raised, for Tune to try again.
        """
        try:
            if self._run is None:
                self._run = _start(self._plan)
                started = {
                    "from_epoch": self._run.from_epoch,
                    "node": platform.node(),
                    "pid": os.getpid(),
                    "relaxation": self._run.relaxation,
                }
                resumed = self._run.last_result
                report = to_report(resumed) if resumed else None
            else:
                started = None
                report = to_report(self._run.train_epoch())
        except Exception as error:
            failure = explain(error)
            if failure.retry:
                raise
            return {
                "failure": {"reason": failure.reason, "message": failure.message},
                DONE: True,
            }
        finished = self._run.finished
        return {
            "started": started,
            "report": report,
            "derived": self._run.genotype().to_json() if finished else None,
            "test_result": self._run.result() if finished else None,
            DONE: finished,
        }


def _start(plan: dict[str, Any]) -> "TrialRun":
    # Here and not above: the runner imports this module too, and needs no torch.
    from workers.trial_run import TrialRun, use_threads

    spec = _spec(plan)
    use_threads(spec.resources.cpus)
    return TrialRun(spec, plan["seed"], Path(plan["folder"]), Path(plan["data_root"]))


def _spec(plan: dict[str, Any]) -> JobSpec:
    return SPECS[JobKind(plan["kind"])].model_validate_json(plan["spec"])
