"""Trials that differ in their hyperparameters: grids, samples, TPE and ASHA, in this process."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import Engine

from search_core.genotype import Genotype
from search_core.pace import reproducible
from store import verbs
from store.epoch_reports import EpochResult
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record
from tests.workers.test_runner import claim
from workers.inline_trials import InlineTrials
from workers.recording import StoreSink
from workers.runner import run
from workers.settings import WorkerSettings

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

DIVERGES = 10.0
"""A weight decay that multiplies the weights by -99 in each step, with that learning rate."""

TPE: dict[str, Any] = {
    "sample": {
        "training.learning_rate": {"loguniform": [1e-3, 0.5]},
        "augmentation.cutout": {"randint": [0, 4]},
    },
    "num_samples": 5,
    "sampler": "tpe",
}
HALVING: dict[str, Any] = {"kind": "asha", "grace_epochs": 2, "reduction_factor": 2}
ASHA: dict[str, Any] = TPE | {"scheduler": HALVING}
LEARNS: dict[str, Any] = {"epochs": 3, "batch_size": 64, "schedule": {"kind": "constant"}}
"""Long enough that a good learning rate is told from a bad one after two epochs."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def parameters_of(record: Record) -> list[dict[str, Any] | None]:
    return [trial.parameters for trial in record.trials]


def test_each_point_runs_as_if_it_had_been_submitted_alone(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    grid = {"training.learning_rate": [0.025, 0.2], "training.epochs": [1, 2]}
    search = submit(trials={"grid": grid, "seeds": [3]})
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    trials = record(search).trials
    assert [trial.epochs for trial in trials] == [1, 1, 2, 2]
    for trial in trials:
        assert trial.parameters is not None
        epochs = trial.parameters["training.epochs"]
        rate = trial.parameters["training.learning_rate"]
        alone = submit(training={"learning_rate": rate, "epochs": epochs}, trials={"seeds": [3]})
        assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
        (same,) = record(alone).trials
        assert reproducible(same.metrics) == reproducible(trial.metrics)
        assert same.architecture_hash == trial.architecture_hash
    best = max(trials, key=lambda trial: trial.metrics["validation_accuracy"])
    rate = (best.parameters or {})["training.learning_rate"]
    assert f"training.learning_rate = {rate}" in record(search).search.recommendation


def test_a_point_that_diverges_fails_alone_and_can_be_retried(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search = submit(
        training={"learning_rate": 10.0, "batch_size": 64},
        trials={"grid": {"training.weight_decay": [DIVERGES, 0.0]}},
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    before = record(search)
    assert [(trial.status, trial.reason) for trial in before.trials] == [
        ("failed", "diverged"),
        ("succeeded", "completed"),
    ]
    assert before.search.message == "1 of 2 trials failed."
    with transaction(engine) as session:
        verbs.retry_trial(session, before.trials[0].id)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    assert [trial.reason for trial in after.trials] == ["diverged", "completed"]
    started = [event for event in after.events if event.kind == "trial.started"]
    assert [event.trial_id for event in started].count(before.trials[1].id) == 1
    assert [event.trial_id for event in started].count(before.trials[0].id) == 2
    assert after.search.recommended_hash == before.search.recommended_hash


def test_a_trial_that_is_retried_while_others_run_is_run_after_them(
    engine: Engine,
    settings: WorkerSettings,
    submit: Submit,
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = submit(
        training={"learning_rate": 10.0, "batch_size": 64},
        trials={"grid": {"training.weight_decay": [DIVERGES, 0.0]}},
    )
    retried: list[UUID] = []

    class _Retries(StoreSink):
        def succeeded(
            self, trial_id: UUID, genotype: Genotype, result: Mapping[str, Any] | None = None
        ) -> None:
            super().succeeded(trial_id, genotype, result)
            first = record(search).trials[0]
            if not retried:
                retried.append(first.id)
                with transaction(engine) as session:
                    assert verbs.retry_trial(session, first.id).status == "queued"

    monkeypatch.setattr("workers.runner.StoreSink", _Retries)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    assert after.search.attempt == 1
    assert after.kinds.count("trial.failed") == 2
    assert after.kinds.count("search.succeeded") == 1


class _Dies(StoreSink):
    """A sink whose process ends before the n-th call of one of its methods is recorded."""

    method = ""
    calls_left = 0

    def _count(self, method: str) -> None:
        if method == type(self).method:
            type(self).calls_left -= 1
            if type(self).calls_left == 0:
                raise KeyboardInterrupt

    def epoch_ended(self, trial_id: UUID, result: EpochResult) -> None:
        self._count("epoch_ended")
        super().epoch_ended(trial_id, result)

    def starting(self, trial_id: UUID) -> None:
        self._count("starting")  # its suggestion is recorded, and nothing else
        super().starting(trial_id)

    def stopped(self, trial_id: UUID, genotype: Genotype, message: str) -> None:
        self._count("stopped")
        super().stopped(trial_id, genotype, message)


def outcomes(after: Record) -> list[tuple[Any, ...]]:
    return [
        (trial.status, trial.epoch, trial.parameters, trial.architecture_hash)
        for trial in after.trials
    ]


@pytest.mark.parametrize(
    ("trials", "training", "deaths"),
    [
        (TPE, {"epochs": 1}, [("starting", 3), ("epoch_ended", 2)]),
        (ASHA, LEARNS, [("epoch_ended", 5), ("stopped", 1)]),
    ],
)
def test_runners_that_die_leave_their_successors_the_same_points_and_decisions(
    engine: Engine,
    settings: WorkerSettings,
    submit: Submit,
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    trials: dict[str, Any],
    training: dict[str, Any],
    deaths: list[tuple[str, int]],
) -> None:
    undisturbed = submit(trials=trials, training=training)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    expected = outcomes(record(undisturbed))
    assert len({str(parameters) for _, _, parameters, _ in expected}) == 5
    if "scheduler" in trials:
        assert {status for status, *_ in expected} == {"succeeded", "stopped"}

    disturbed = submit(trials=trials, training=training)
    assert parameters_of(record(disturbed)) == [None] * 5
    lease = claim(engine)
    for method, call in deaths:
        dies = type("_DiesThere", (_Dies,), {"method": method, "calls_left": call})
        with monkeypatch.context() as patched:
            patched.setattr("workers.runner.StoreSink", dies)
            with pytest.raises(KeyboardInterrupt):
                run(engine, lease, settings, InlineTrials())
        drawn = [parameters is not None for parameters in parameters_of(record(disturbed))]
        assert drawn == sorted(drawn, reverse=True)
        assert drawn[0]
    assert run(engine, lease, settings, InlineTrials()) == "succeeded"
    assert outcomes(record(disturbed)) == expected


def test_tpe_draws_once_for_all_seeds_and_searches_each_combination_of_the_grid(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search = submit(
        trials={
            "seeds": [0, 1],
            "grid": {"algorithm.weighting": ["scalar", "max_w"]},
            "sample": {"training.learning_rate": {"loguniform": [1e-2, 0.5]}},
            "num_samples": 2,
            "sampler": "tpe",
        },
        training={"epochs": 1},
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    points = [tuple(sorted((trial.parameters or {}).items())) for trial in after.trials]
    assert len(points) == 8
    assert points[0::2] == points[1::2]
    assert len(set(points)) == 4
    assert [dict(point)["algorithm.weighting"] for point in points[0::2]] == [
        "scalar", "max_w", "scalar", "max_w",
    ]  # fmt: skip
    order = [event.kind for event in after.events if event.trial_id == after.trials[0].id]
    assert order.index("trial.suggested") < order.index("trial.starting")


def test_a_drawn_combination_that_is_no_valid_spec_is_not_drawn_or_fails_alone(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    # Either end is valid beside the other's smallest; large ones of both are not.
    search = submit(
        trials={
            "sample": {
                "training.epochs": {"randint": [1, 2]},
                "training.schedule.warmup_epochs": {"randint": [0, 1]},
            },
            "num_samples": 4,
            "sampler": "tpe",
        },
        training={"schedule": {"kind": "cosine_power"}},
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    valid = {(1, 0), (2, 0), (2, 1)}
    seen = []
    for trial in after.trials:
        assert trial.parameters is not None
        pair = (
            trial.parameters["training.epochs"],
            trial.parameters["training.schedule.warmup_epochs"],
        )
        seen.append(pair)
        assert (trial.status == "succeeded") == (pair in valid)
    assert valid <= set(seen)


def test_a_stopped_trial_keeps_its_architecture_and_is_not_recommended(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search = submit(
        training=LEARNS,
        trials={
            "grid": {"training.learning_rate": [0.2, 0.0001]},
            "seeds": [0, 1],
            "scheduler": HALVING,
        },
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    stopped = [trial for trial in after.trials if trial.status == "stopped"]
    assert stopped
    for trial in stopped:
        assert trial.reason == Reason.STOPPED_EARLY
        assert trial.epoch < trial.epochs
        assert trial.architecture_hash is not None
        assert "validation accuracy" in trial.message
    finished = {trial.architecture_hash for trial in after.trials if trial.status == "succeeded"}
    assert after.search.recommended_hash in finished
    assert f"{len(stopped)} of 4 trials stopped early." in after.search.message


def test_trainings_vary_too(
    engine: Engine, settings: WorkerSettings, submit_training: Submit, record: Recorder
) -> None:
    training = submit_training(
        training=LEARNS,
        trials={
            "grid": {"training.learning_rate": [0.2, 1e-6], "network.channels": [2, 3]},
            "scheduler": HALVING,
        },
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(training)
    for trial in after.trials:
        # What was stopped has not looked at the test images.
        assert (trial.result is not None) == (trial.status == "succeeded")
    assert {trial.status for trial in after.trials} == {"succeeded", "stopped"}
