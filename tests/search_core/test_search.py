import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from search_core.errors import CheckpointError, DivergedError
from search_core.genotype import CellGenotype
from search_core.pace import reproducible
from search_core.search import BatchProgress, EpochReport, SearchRun
from search_core.spec import PRESETS, SearchSpec

SpecMaker = Callable[..., SearchSpec]

METRICS = {
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
    "steps_per_second",
    "images_per_second",
    "peak_memory_bytes",
    "alpha_entropy_normal",
    "alpha_entropy_reduce",
    "skip_connects",
    "collapsed",
}


SPACES: dict[str, dict[str, Any]] = {
    "darts": {"kind": "darts", "channels": 2, "cells": 3, "nodes": 1},
    "sharp_darts": {"kind": "sharp_darts", "channels": 2, "cells": 3, "nodes": 1},
    "hypercuboid": {
        "kind": "hypercuboid",
        "axes": {"channels": [2, 3], "normalisation": ["batch", "group"]},
        "levels": 2,
        "final_channels": 4,
    },
}


class KilledError(Exception):
    """What a test stops a run with."""


def finish(run: SearchRun) -> list[EpochReport]:
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    return reports


def bits(reports: list[EpochReport]) -> list[tuple[Any, ...]]:
    """All that must repeat: everything but the time it took."""
    return [
        (
            reproducible(report.metrics),
            report.alphas,
            report.genotype,
            report.epoch,
        )
        for report in reports
    ]


def kill_after(run: SearchRun, num_batches: int) -> None:
    done = 0

    def on_batch(progress: BatchProgress) -> None:
        nonlocal done
        done += 1
        if done == num_batches:
            raise KilledError

    def run_on() -> None:
        while True:
            run.run_epoch(on_batch)

    with pytest.raises(KilledError):
        run_on()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def test_reports_of_a_run(make_spec: SpecMaker) -> None:
    ticks = iter(range(1000))
    run = SearchRun(make_spec(), 0, clock=lambda: float(next(ticks)))
    seen: list[BatchProgress] = []
    first = run.run_epoch(seen.append)
    assert [(each.epoch, each.batch, each.batches) for each in seen] == [
        (1, 1, 3),
        (1, 2, 3),
        (1, 3, 3),
    ]
    assert [each.seconds for each in seen] == [1, 2, 3]
    assert first.metrics["seconds"] == 4
    assert first.metrics["steps_per_second"] == pytest.approx(1)
    assert first.metrics["images_per_second"] == pytest.approx(200)
    assert (first.epoch, first.epochs, run.epoch, run.finished) == (1, 2, 1, False)
    second = run.run_epoch()
    assert (second.epoch, run.epoch, run.finished) == (2, 2, True)
    for report in (first, second):
        assert set(report.metrics) == METRICS
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert 0 <= report.metrics["validation_accuracy"] <= 1
        assert isinstance(report.genotype, CellGenotype)
        assert report.genotype.num_nodes == 1
        assert set(report.alphas) == {"normal", "reduce"}
        for rows in report.alphas.values():
            assert [len(row) for row in rows] == [8, 8]
            assert all(sum(row) == pytest.approx(1) for row in rows)
    assert [first.metrics["learning_rate"], second.metrics["learning_rate"]] == [0.1, 0.001]
    assert second.genotype == run.genotype()
    with pytest.raises(RuntimeError, match="finished: 2 epochs are done"):
        run.run_epoch()


def test_a_search_learns_and_its_alphas_move(make_spec: SpecMaker) -> None:
    spec = make_spec(space={"channels": 4}, training={"epochs": 6, "batch_size": 64})
    reports = finish(SearchRun(spec, 0))
    assert reports[-1].metrics["validation_accuracy"] > 0.9
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"] / 3
    assert reports[-1].metrics["alpha_entropy_normal"] < math.log(8) - 0.02


def test_seeds_differ_and_the_global_generator_does_not_matter(make_spec: SpecMaker) -> None:
    spec = make_spec(training={"epochs": 1})
    before = torch.get_rng_state()
    once = bits(finish(SearchRun(spec, 0)))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    assert bits(finish(SearchRun(spec, 0))) == once
    assert bits(finish(SearchRun(spec, 1))) != once


@pytest.mark.parametrize(
    ("kind", "order", "killed_after"),
    [
        ("darts", "first", (1, 2, 3, 4, 5, 6)),
        ("darts", "second", (2, 6)),
        ("sharp_darts", "first", (4,)),
        ("sharp_darts", "second", (3,)),
        ("hypercuboid", "first", (1, 4, 6)),
        ("hypercuboid", "second", (3,)),
    ],
)
def test_killed_at_any_batch_a_resumed_run_gives_the_same_bits(
    make_spec: SpecMaker, kind: str, order: str, killed_after: tuple[int, ...]
) -> None:
    spec = make_spec(
        space=SPACES[kind],
        dataset={"train_portion": 0.1},
        algorithm={"order": order, "weighting": "max_w"},
        training={"batch_size": 45, "schedule": {"kind": "cosine_power", "warmup_epochs": 1}},
    )
    undisturbed = bits(finish(SearchRun(spec, 7)))
    for num_batches in killed_after:
        run = SearchRun(spec, 7)
        kill_after(run, num_batches)
        resumed = SearchRun(spec, 7)
        resumed.load_state_dict(through_a_file(run.state_dict()))
        assert resumed.epoch == run.epoch
        reports = bits(finish(resumed))
        assert reports == undisturbed[-len(reports) :]


def test_a_run_that_a_callback_stopped_can_simply_go_on(make_spec: SpecMaker) -> None:
    undisturbed = bits(finish(SearchRun(make_spec(), 0)))
    run = SearchRun(make_spec(), 0)
    kill_after(run, 2)
    assert bits(finish(run)) == undisturbed


def test_a_run_saved_between_epochs_and_after_the_last(make_spec: SpecMaker) -> None:
    spec = make_spec()
    run = SearchRun(spec, 0)
    first = run.run_epoch()
    between = through_a_file(run.state_dict())
    second = run.run_epoch()
    resumed = SearchRun(spec, 0)
    resumed.load_state_dict(between)
    assert bits([resumed.run_epoch()]) == bits([second])
    assert first.epoch == 1
    done = SearchRun(spec, 0)
    done.load_state_dict(run.state_dict())
    assert done.finished
    assert done.genotype() == second.genotype


def test_a_state_is_a_snapshot_of_plain_values(make_spec: SpecMaker) -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            assert all(type(key) in (str, int) for key in value)
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert value is None or type(value) in (torch.Tensor, int, float, str, bool)

    run = SearchRun(make_spec(), 0)
    run.run_epoch()
    state = run.state_dict()
    check(state)
    copy = through_a_file(state)
    run.run_epoch()
    for name, value in state["network"].items():
        assert torch.equal(value, copy["network"][name])
    assert not torch.equal(state["network"]["head.weight"], run.network.state_dict()["head.weight"])


@pytest.mark.parametrize(
    ("changes", "seed", "message"),
    [
        ({"training": {"epochs": 3}}, 0, "another spec"),
        ({"algorithm": {"order": "second"}}, 0, "another spec"),
        ({"dataset": {"train_portion": 0.6}}, 0, "another spec"),
        ({}, 1, "seed 0, but this one has 1"),
    ],
)
def test_a_state_of_another_trial_is_refused(
    make_spec: SpecMaker, changes: dict[str, Any], seed: int, message: str
) -> None:
    state = SearchRun(make_spec(), 0).state_dict()
    with pytest.raises(CheckpointError, match=message):
        SearchRun(make_spec(**changes), seed).load_state_dict(state)


def test_a_state_of_another_version_is_refused(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)
    with pytest.raises(CheckpointError, match="version 99"):
        run.load_state_dict({**run.state_dict(), "version": 99})


def test_what_changes_no_number_may_differ(make_spec: SpecMaker) -> None:
    state = SearchRun(make_spec(), 0).state_dict()
    renamed = make_spec(
        name="again",
        labels={"owner": "me"},
        priority=5,
        trials={"seeds": [0, 1, 2]},
        resources={"cpus": 4},
    )
    SearchRun(renamed, 0).load_state_dict(state)


def test_divergence_says_where_and_what_to_try(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)
    run.run_epoch()

    def poison(progress: BatchProgress) -> None:
        with torch.no_grad():
            run.network.weight_parameters()[-1].fill_(math.inf)

    with pytest.raises(
        DivergedError, match=r"epoch 2, batch 2: the validation loss is .*; try a learning_rate"
    ):
        run.run_epoch(poison)


def test_divergence_at_the_last_batch_is_noticed(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)

    def poison(progress: BatchProgress) -> None:
        if progress.batch == progress.batches:
            with torch.no_grad():
                run.network.weight_parameters()[-1].fill_(math.nan)

    with pytest.raises(DivergedError, match="end of epoch 1: the validation loss is nan"):
        run.run_epoch(poison)


def test_the_halves_of_a_run_share_no_image_with_the_test_split(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(dataset={"train_portion": 0.7}), 3)
    facts = run._spec.dataset.facts
    assert len(run._train) == int(0.7 * facts.num_train)
    assert len(run._train) + len(run._validation) == facts.num_train


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_start(name: str) -> None:
    # On images of a seed where the preset's are not to be had, and one small batch of them.
    changes = {
        "dataset": {"name": "synthetic", "num_train": 16, "num_test": 10},
        "training": {"batch_size": 2},
    }
    preset = PRESETS[name]
    spec = SearchSpec.model_validate(
        {
            "preset": name,
            "space": {"kind": preset.spec["space"]["kind"]},
            **({} if preset.spec["dataset"]["name"] == "digits" else changes),
        }
    )
    run = SearchRun(spec, spec.trials.seeds[0])
    seen: list[BatchProgress] = []

    def stop(progress: BatchProgress) -> None:
        seen.append(progress)
        raise KilledError

    with pytest.raises(KilledError):
        run.run_epoch(stop)
    assert seen[0].batch == 1
