"""Stacked seeds through the runner: as many trials as there are seeds, in one process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from search_core.cuboid_size import searched_size
from search_core.data import LabelledImages
from search_core.pace import reproducible
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from search_core.storage import Folder
from store import verbs
from store.artifacts import ArtifactFolder
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record, tiny
from tests.workers.test_runner import claim
from workers import memory
from workers.failures import Failure
from workers.inline_trials import InlineTrials
from workers.recording import StoreSink
from workers.runner import run
from workers.settings import WorkerSettings
from workers.trial_group import Started, TrialGroup
from workers.trial_run import TrialRun
from workers.trials import TrialPlan

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

SEEDS = [3, 5, 8]
# Seeds that lie side by side, in too short a search for the last digits of single precision to grow
# into its genotype.
TAME: dict[str, Any] = {
    "training": {"learning_rate": 0.01},
    "algorithm": {"architecture_learning_rate": 0.001, "relaxation": "plain"},
}


def plans_of(spec: SearchSpec, folder: Path, seeds: list[int] = SEEDS) -> list[TrialPlan]:
    return [
        TrialPlan(
            uuid4(),
            number,
            seed,
            spec,
            folder=ArtifactFolder(str(folder), str(seed)),
            data_root=folder,
        )
        for number, seed in enumerate(seeds)
    ]


def epochs_of(group: TrialGroup, plans: list[TrialPlan]) -> list[int]:
    started = group.start()
    found = []
    for plan in plans:
        start = started[plan.trial_id]
        assert isinstance(start, Started)
        found.append(start.from_epoch)
    return found


def finish(group: TrialGroup, plans: list[TrialPlan]) -> list[bytes]:
    """Trains to the end; what the trials then weigh their candidates with, to the bit."""
    alphas: dict[UUID, Any] = {}
    while group.open:
        for trial_id, outcome in group.train_epoch().items():
            assert not isinstance(outcome, Failure), outcome.message
            alphas[trial_id] = outcome.alphas
    return [repr(alphas[plan.trial_id]).encode() for plan in plans]


def test_a_stacked_search_is_recorded_like_any_other(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    alone = submit(trials={"seeds": SEEDS}, **TAME)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    stacked = submit(trials={"seeds": SEEDS, "stack": 2}, **TAME)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    expected, after = record(alone), record(stacked)
    for trial, other in zip(after.trials, expected.trials, strict=True):
        assert (trial.number, trial.seed, trial.status, trial.epoch) == (
            (other.number, other.seed, "succeeded", 2)
        )
        assert trial.architecture_hash == other.architecture_hash
        assert trial.metrics.keys() == other.metrics.keys()
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            assert trial.metrics[name] == pytest.approx(other.metrics[name], rel=1e-3, abs=1e-3)
        kinds = [
            [event.kind for event in each.events if event.trial_id == trial_id]
            for each, trial_id in ((after, trial.id), (expected, other.id))
        ]
        assert kinds[0] == kinds[1]
    assert after.search.recommended_hash == expected.search.recommended_hash


def test_points_are_stacked_by_themselves(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search = submit(
        training={"epochs": 1},
        trials={
            "seeds": SEEDS,
            "stack": 2,
            "sample": {"training.learning_rate": {"uniform": [0.01, 0.02]}},
            "num_samples": 2,
            "sampler": "tpe",
        },
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    assert [trial.stack for trial in after.trials] == [0, 0, 1, 2, 2, 3]
    rates = [(trial.parameters or {})["training.learning_rate"] for trial in after.trials]
    assert rates[:3] == [rates[0]] * 3
    assert rates[3:] == [rates[3]] * 3
    assert rates[0] != rates[3]
    assert after.kinds.count("trial.suggested") == 6
    # The second trial of a stack starts when the first does.
    starts = [event.trial_id for event in after.events if event.kind == "trial.started"]
    assert starts == [trial.id for trial in after.trials]


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
def test_one_that_diverges_fails_alone_and_is_run_again(
    engine: Engine,
    settings: WorkerSettings,
    submit: Submit,
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    relaxation: str,
) -> None:
    tame = {**TAME, "algorithm": TAME["algorithm"] | {"relaxation": relaxation}}
    search = submit(trials={"seeds": SEEDS, "stack": 3}, **tame)
    draw = SearchRun.draw

    def draw_spoilt(self: SearchRun) -> tuple[LabelledImages, LabelledImages]:
        train, validation = draw(self)
        if self.seed == SEEDS[1]:
            train.images_nchw.fill_(float("nan"))
        return train, validation

    with monkeypatch.context() as patched:
        patched.setattr(SearchRun, "draw", draw_spoilt)
        assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    assert [trial.status for trial in after.trials] == ["succeeded", "failed", "succeeded"]
    failed = after.trials[1]
    assert failed.reason == Reason.DIVERGED
    assert "epoch 1, batch 1" in failed.message
    assert after.search.message == "1 of 3 trials failed."
    with transaction(engine) as session:
        verbs.retry_trial(session, failed.id)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search)
    assert [trial.status for trial in after.trials] == ["succeeded"] * 3
    alone = submit(trials={"seeds": [SEEDS[1]]}, **tame)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    assert after.trials[1].architecture_hash == record(alone).trials[0].architecture_hash


def test_a_checkpoint_of_another_search_fails_one_trial_only(tmp_path: Path) -> None:
    spec = tiny(trials={"seeds": SEEDS, "stack": 3})
    TrialRun(spec, 99, Folder(tmp_path / str(SEEDS[0])), tmp_path).train_epoch()
    plans = plans_of(spec, tmp_path)
    group = TrialGroup(plans)
    started = group.start()
    failure = started[plans[0].trial_id]
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.INVALID_INPUT
    assert group.open.keys() == {plan.trial_id for plan in plans[1:]}
    assert group.train_epoch().keys() == group.open.keys()


@pytest.mark.parametrize(
    ("relaxation", "epoch", "num_saved"),
    [("plain", 1, 1), ("plain", 1, 2), ("plain", 2, 1), ("plain", 2, 2), ("auto", 1, 1)],
)
def test_killed_between_two_saves_a_stack_ends_with_the_same_bits(
    tmp_path: Path, relaxation: str, epoch: int, num_saved: int
) -> None:
    spec = tiny(
        algorithm={"relaxation": relaxation},
        training={"epochs": 3},
        trials={"seeds": SEEDS, "stack": 3},
    )
    whole = plans_of(spec, tmp_path / "whole")
    undisturbed = TrialGroup(whole)
    undisturbed.start()
    expected = finish(undisturbed, whole)

    plans = plans_of(spec, tmp_path / "killed")
    killed = TrialGroup(plans)
    killed.start()
    for _ in range(epoch):
        killed.train_epoch()
    # As if the process had ended before the others had saved this epoch.
    for plan in plans[num_saved:]:
        (newest,) = Path(plan.folder.root, plan.folder.path).glob(f"epoch-{epoch:06d}.*")
        newest.unlink()
    resumed = TrialGroup(plans)
    assert epochs_of(resumed, plans) == [epoch - 1] * 3
    assert finish(resumed, plans) == expected


def test_one_that_is_far_behind_catches_up(tmp_path: Path) -> None:
    spec = tiny(training={"epochs": 4}, trials={"seeds": SEEDS[:2], "stack": 2})
    plans = plans_of(spec, tmp_path, SEEDS[:2])
    ahead = TrialRun(spec, plans[0].seed, plans[0].folder.open(), tmp_path)
    for _ in range(3):
        ahead.train_epoch()
    group = TrialGroup(plans)
    assert epochs_of(group, plans) == [3, 0]
    trained = [list(group.train_epoch()) for _ in range(4)]
    assert trained[:3] == [[plans[1].trial_id]] * 3
    assert trained[3] == [plan.trial_id for plan in plans]
    assert not group.open


def test_a_trial_goes_on_alone_from_a_stack_and_the_other_way_round(tmp_path: Path) -> None:
    spec = tiny(trials={"seeds": SEEDS[:2], "stack": 2}, **TAME)
    plans = plans_of(spec, tmp_path, SEEDS[:2])
    group = TrialGroup(plans)
    group.start()
    group.train_epoch()
    alone = TrialRun(spec, plans[0].seed, plans[0].folder.open(), tmp_path)
    assert alone.from_epoch == 1
    result = alone.train_epoch()
    again = TrialGroup(plans)
    assert epochs_of(again, plans) == [1, 1]  # back to where both were
    outcome = again.train_epoch()[plans[0].trial_id]
    assert not isinstance(outcome, Failure)
    assert outcome.genotype == result.genotype
    assert outcome.metrics["train_loss"] == pytest.approx(result.metrics["train_loss"], rel=1e-3)


class _LosesItsProcess(StoreSink):
    """A sink whose process is lost after the second trial's first epoch."""

    def epoch_ended(self, trial_id: UUID, result: Any) -> None:
        super().epoch_ended(trial_id, result)
        if result.epoch == 1 and trial_id == self.trials()[1].id:
            raise KeyboardInterrupt


def test_a_lost_runner_changes_nothing_in_what_a_stack_comes_to(
    engine: Engine,
    settings: WorkerSettings,
    submit: Submit,
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed = submit(trials={"seeds": SEEDS, "stack": 3})
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    disturbed = submit(trials={"seeds": SEEDS, "stack": 3})
    lease = claim(engine)
    with monkeypatch.context() as patched:
        patched.setattr("workers.runner.StoreSink", _LosesItsProcess)
        with pytest.raises(KeyboardInterrupt):
            run(engine, lease, settings, InlineTrials())
    assert run(engine, lease, settings, InlineTrials()) == "succeeded"
    after, expected = record(disturbed), record(undisturbed)
    for trial, other in zip(after.trials, expected.trials, strict=True):
        assert reproducible(trial.metrics) == reproducible(other.metrics)
        assert trial.architecture_hash == other.architecture_hash
        epochs = [
            event.data["epoch"]
            for event in after.events
            if event.kind == "trial.epoch" and event.trial_id == trial.id
        ]
        assert epochs == [1, 2]


def test_a_stack_that_does_not_fit_its_memory_is_refused(
    engine: Engine,
    settings: WorkerSettings,
    submit: Submit,
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sections: dict[str, Any] = {
        "space": {"kind": "hypercuboid", "axes": {"channels": [2, 4]}, "levels": 1},
        "algorithm": {"relaxation": "plain"},
        "trials": {"seeds": SEEDS, "stack": 3},
        "training": {"batch_size": 64},
    }
    search = submit(**sections)
    one, three = (searched_size(tiny(**sections), number) for number in (1, 3))
    in_turn = searched_size(tiny(**{**sections, "algorithm": {}}), 3)
    assert one is not None
    assert three is not None
    assert in_turn is not None
    assert one.training_bytes < in_turn.training_bytes < 2 * one.training_bytes
    assert 2 * one.training_bytes < three.training_bytes < 3 * one.training_bytes
    with monkeypatch.context() as patched:
        patched.setattr(memory, "available", lambda: 2 * one.training_bytes)
        assert run(engine, claim(engine), settings, InlineTrials()) == "failed"
    after = record(search)
    assert [trial.reason for trial in after.trials] == [Reason.OUT_OF_MEMORY] * 3
    assert "for 3 stacked seeds takes an estimated" in after.search.message
    assert "stack fewer seeds" in after.search.message


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
def test_the_cores_of_seeds_side_by_side_are_shared_by_those_who_read_images(
    tmp_path: Path, relaxation: str
) -> None:
    cores = os.cpu_count() or 1
    spec = tiny(
        algorithm={"relaxation": relaxation},
        resources={"cpus": cores},
        trials={"seeds": SEEDS, "stack": 3},
    )
    plans = plans_of(spec, tmp_path)
    group = TrialGroup(plans)
    group.start()
    expected = 1 + (cores - 1) // 3 if relaxation == "plain" else cores
    for trial in group.open.values():
        assert trial.search.spec.resources.cpus == expected
