"""The same searches in this process, with nothing killed: what all others are compared with."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID, uuid4

from benchmarks.faults.records import ExpectedEpoch, ExpectedTrial
from search_core.pace import OF_THE_MACHINE, reproducible
from search_core.spec import point_spec, trial_points
from store.artifacts import ArtifactFolder
from store.epoch_reports import EpochResult
from store.events import finite
from store.jobs import JobSpec
from workers.failures import Failure
from workers.trial_group import TrialGroup
from workers.trials import TrialPlan


def run(spec: JobSpec) -> tuple[ExpectedTrial, ...]:
    """Runs all trials of a search or training to their last epoch, whatever its scheduler says.

    Args:
        spec: What is submitted; nothing of it is drawn late.

    Returns:
        What each trial reports, by number.
    """
    logging.getLogger("workers").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="dartboard-undisturbed-") as name:
        points = trial_points(spec.trials)
        plans = [
            TrialPlan(
                uuid4(),
                number,
                point.seed,
                point_spec(spec, point.parameters or {}),
                folder=ArtifactFolder(name, f"trial-{number}"),
                data_root=Path(name),
            )
            for number, point in enumerate(points)
        ]
        stacks = [point.stack for point in points]
        return tuple(
            trial
            for stack in sorted(set(stacks))
            for trial in _run_group([plans[n] for n, each in enumerate(stacks) if each == stack])
        )


def _run_group(plans: Sequence[TrialPlan]) -> list[ExpectedTrial]:
    group = TrialGroup(plans)
    group.start()
    epochs: Mapping[UUID, list[ExpectedEpoch]] = {plan.trial_id: [] for plan in plans}
    while group.open:
        for trial_id, outcome in group.train_epoch().items():
            assert not isinstance(outcome, Failure), outcome
            epochs[trial_id].append(_expected(outcome))
    trials = []
    for trial_id, reported in epochs.items():
        end = group.end_of(trial_id)
        assert end is not None
        result = None if end.result is None else finite(end.result)
        trials.append(ExpectedTrial(tuple(reported), result))
    return trials


def _expected(result: EpochResult) -> ExpectedEpoch:
    return ExpectedEpoch(
        metrics=reproducible(result.metrics),
        of_the_machine=frozenset(result.metrics) & OF_THE_MACHINE,
        alphas=json.loads(json.dumps(dict(result.alphas))),
        architecture=result.genotype.hash,
    )
