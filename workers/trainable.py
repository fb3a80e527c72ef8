"""Trials as Ray Tune sees them: a process on some node that takes steps."""

import gc
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import ray
from ray import tune
from ray.tune.result import DONE

from store.artifacts import ArtifactFolder
from store.epoch_reports import EpochResult
from store.jobs import SPECS, JobSpec
from store.logs import trial_log
from store.states import JobKind
from workers.failures import Failure, explain
from workers.reports import to_report
from workers.trial_output import TrialOutput, log_to_stderr
from workers.trials import TrialPlan

if TYPE_CHECKING:
    from workers.trial_group import TrialGroup

_LOG = logging.getLogger(__name__)


class TrialTrainable(tune.Trainable):
    """Trains one epoch a step, after a first step that says where it starts from.

    It is one trial of the search, or a stack of them. The checkpoints are the trials' own
    (`search_core.checkpoints`), not Tune's: they are written atomically with a digest, and a new
    runner finds them without Tune's state.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What the process occupies on its node, as the spec says."""
        resources = _spec(config["plan"]).resources
        return tune.PlacementGroupFactory(
            [{"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}]
        )

    def setup(self, config: dict[str, Any]) -> None:
        """Takes Tune's configuration; the work of starting belongs to the first step.

        Args:
            config: `plan` is what `to_config` made of the trials' plans.
        """
        self._plan: dict[str, Any] = config["plan"]
        self._group: TrialGroup | None = None
        self._output = TrialOutput(
            ArtifactFolder(self._plan["storage"], self._plan["logs"]),
            [trial_log(each["number"], self._plan["attempt"]) for each in self._plan["trials"]],
        )
        log_to_stderr()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial into this process, which has loaded all that a trial needs.

        Returns:
            That it has; every trial of a search can follow every other one.
        """
        self._output.close()
        # Its tensors go before the next trial asks how much memory is free.
        self._group = None
        gc.collect()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Keeps the rest of the log; Tune is done with this process."""
        self._output.close()

    def step(self) -> dict[str, Any]:
        """Starts, or trains an epoch.

        Returns:
            `trials`: for each trial that has news, by its id, what they are. `started` has the
            epoch, node and relaxation, `report` an epoch (also that which was resumed from, if
            any); after a trial's last one follow `derived`, the genotype, and `test_result`, if it
            is a training; `failure` stands in place of all these when the trial cannot go on.
            `ray_node`: Ray's id of the node.
            An error that another try may mend is raised, for Tune to try again.
        """
        if self._plan.get("given_up"):
            return {"trials": {}, DONE: True}
        try:
            news = self._start() if self._group is None else self._train(self._group)
        except Exception as error:
            _LOG.exception("no trial of this process can go on")
            # Tune may end the process before another copy is made.
            self._output.keep()
            failure = explain(error)
            if failure.retry:
                raise
            left = _ids(self._plan) if self._group is None else [*map(str, self._group.open)]
            return {"trials": dict.fromkeys(left, _failed(failure)), DONE: True}
        assert self._group is not None
        if not self._group.open:
            self._output.keep()
        return {"trials": news, "ray_node": _ray_node(), DONE: not self._group.open}

    def _start(self) -> dict[str, Any]:
        # Here and not above: the runner imports this module too, and needs no torch.
        from workers.trial_group import TrialGroup

        group = TrialGroup(_plans(self._plan))
        news: dict[str, Any] = {}
        for trial_id, start in group.start().items():
            if isinstance(start, Failure):
                news[str(trial_id)] = _failed(start)
                continue
            started = {
                "from_epoch": start.from_epoch,
                "node": platform.node(),
                "pid": os.getpid(),
                "relaxation": start.relaxation,
            }
            news[str(trial_id)] = {"started": started, **_reported(group, trial_id, start.result)}
        self._group = group
        return news

    def _train(self, group: "TrialGroup") -> dict[str, Any]:
        return {
            str(trial_id): _failed(outcome)
            if isinstance(outcome, Failure)
            else _reported(group, trial_id, outcome)
            for trial_id, outcome in group.train_epoch().items()
        }


def to_config(
    plans: Sequence[TrialPlan], kind: JobKind, logs: ArtifactFolder, attempt: int
) -> dict[str, Any]:
    """The plans of one process as plain values.

    Args:
        plans: They differ in the trial, its seed and its folder only.
        kind: Of their job.
        logs: Where the logs of the job go, in the storage of the checkpoints.
        attempt: Of the job.
    """
    first = plans[0]
    return {
        "kind": str(kind),
        "spec": first.spec.model_dump_json(),
        "data_root": str(first.data_root),
        "storage": first.folder.root,
        "logs": logs.path,
        "attempt": attempt,
        "trials": [
            {
                "trial_id": str(plan.trial_id),
                "number": plan.number,
                "seed": plan.seed,
                "folder": plan.folder.path,
            }
            for plan in plans
        ],
    }


def give_up(config: dict[str, Any]) -> None:
    """Makes a process that Tune starts from this configuration end at once."""
    config["plan"]["given_up"] = True


def _plans(plan: Mapping[str, Any]) -> list[TrialPlan]:
    spec = _spec(plan)
    return [
        TrialPlan(
            UUID(each["trial_id"]),
            each["number"],
            each["seed"],
            spec,
            folder=ArtifactFolder(plan["storage"], each["folder"]),
            data_root=Path(plan["data_root"]),
        )
        for each in plan["trials"]
    ]


def _ray_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _ids(plan: Mapping[str, Any]) -> list[str]:
    return [each["trial_id"] for each in plan["trials"]]


def _reported(group: "TrialGroup", trial_id: UUID, result: EpochResult | None) -> dict[str, Any]:
    end = group.end_of(trial_id)
    return {
        "report": None if result is None else to_report(result),
        "derived": None if end is None else end.genotype.to_json(),
        "test_result": None if end is None else end.result,
    }


def _failed(failure: Failure) -> dict[str, Any]:
    return {"failure": {"reason": failure.reason, "message": failure.message}}


def _spec(plan: Mapping[str, Any]) -> JobSpec:
    return SPECS[JobKind(plan["kind"])].model_validate_json(plan["spec"])
