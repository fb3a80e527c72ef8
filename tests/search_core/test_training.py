import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from search_core import data
from search_core.classifier import Classifier
from search_core.data import Dataset, LabelledImages, StoredImages
from search_core.drop_path import drop_path_probability
from search_core.errors import CheckpointError, DivergedError
from search_core.evaluation import evaluate
from search_core.genotype import CellGenotype, Edge
from search_core.pace import reproducible
from search_core.reports import BatchProgress
from search_core.spec.presets import TRAINING_PRESETS, merge
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingReport, TrainingRun
from search_core.training_measurement import BestEpoch, TestImages, main_head

GENOTYPE = CellGenotype(
    normal=(Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(Edge("max_pool_3x3", 0), Edge("sep_conv_3x3", 1)),
    reduce_concat=(2,),
)
SMALL = {"name": "synthetic", "num_train": 100, "num_test": 40, "image_shape": [1, 8, 8]}
NUM_BATCHES = 4


class KilledError(Exception):
    """What a test stops a run with."""


def make_spec(**sections: Any) -> RetrainingSpec:
    """A spec of four batches an epoch that uses all there is, with sections laid over it."""
    base = {
        "architecture": json.loads(GENOTYPE.to_json()),
        "network": {"channels": 2, "cells": 3, "drop_path": 0.3},
        "dataset": SMALL,
        "augmentation": {"crop_padding": 1, "cutout": 2},
        "validation_portion": 0.4,
        "training": {
            "epochs": 3,
            "batch_size": 15,
            "learning_rate": 0.1,
            "label_smoothing": 0.1,
            "schedule": {"kind": "cosine_power", "warmup_epochs": 1},
        },
    }
    return RetrainingSpec.model_validate(merge(base, sections))


def finish(run: TrainingRun) -> list[TrainingReport]:
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    return reports


def bits(reports: list[TrainingReport]) -> list[tuple[Any, ...]]:
    """All that must repeat: everything but the time it took."""
    return [
        (
            report.epoch,
            reproducible(report.metrics),
            report.best_epoch,
        )
        for report in reports
    ]


def kill_after(run: TrainingRun, num_batches: int) -> None:
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


def weights(network: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_reports_of_a_run() -> None:
    ticks = iter(range(1000))
    spec = make_spec()
    run = TrainingRun(spec, 0, clock=lambda: float(next(ticks)))
    seen: list[BatchProgress] = []
    first = run.run_epoch(seen.append)
    assert [(each.epoch, each.batch, each.batches) for each in seen] == [
        (1, batch, NUM_BATCHES) for batch in range(1, NUM_BATCHES + 1)
    ]
    assert first.metrics["seconds"] == NUM_BATCHES + 1
    assert first.metrics["steps_per_second"] == pytest.approx(1)
    reports = [first, *finish(run)]
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    for report in reports:
        assert set(report.metrics) == {
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "learning_rate",
            "drop_path",
            "seconds",
            "steps_per_second",
            "images_per_second",
            "peak_memory_bytes",
        }
        assert all(math.isfinite(value) for value in report.metrics.values())
    assert [report.metrics["learning_rate"] for report in reports] == pytest.approx(
        [0.05005, 0.1, 0.0001]
    )
    assert [report.metrics["drop_path"] for report in reports] == [
        drop_path_probability(0.3, epoch, 3) for epoch in range(3)
    ]
    merits = [
        (report.metrics["validation_accuracy"], -report.metrics["validation_loss"])
        for report in reports
    ]
    for done, report in enumerate(reports, start=1):
        assert report.best_epoch == 1 + merits[:done].index(max(merits[:done]))
    assert (run.epoch, run.finished) == (3, True)
    with pytest.raises(RuntimeError, match="finished: 3 epochs are done"):
        run.run_epoch()


def test_a_training_learns() -> None:
    spec = make_spec(
        network={"channels": 4, "drop_path": 0.0},
        augmentation={"cutout": 0},
        dataset={"name": "synthetic", "num_train": 500, "num_classes": 4, "noise": 0.1},
        validation_portion=0.1,
        training={"epochs": 6, "batch_size": 32},
    )
    run = TrainingRun(spec, 0)
    reports = finish(run)
    result = run.result()
    assert reports[-1].metrics["validation_accuracy"] > 0.9
    assert result.last.accuracy > 0.9
    assert result.best is not None
    assert result.best.accuracy > 0.9


def test_seeds_differ_and_the_global_generator_does_not_matter() -> None:
    spec = make_spec(training={"epochs": 2})
    before = torch.get_rng_state()
    once = bits(finish(TrainingRun(spec, 0)))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    assert bits(finish(TrainingRun(spec, 0))) == once
    assert bits(finish(TrainingRun(spec, 1))) != once


@pytest.mark.parametrize(
    ("precision", "killed_after"), [("float32", (1, 4, 6, 9, 12)), ("bfloat16", (7,))]
)
def test_killed_at_any_batch_a_resumed_run_gives_the_same_bits(
    precision: str, killed_after: tuple[int, ...]
) -> None:
    spec = make_spec(training={"precision": precision})
    whole = TrainingRun(spec, 7)
    undisturbed, result = bits(finish(whole)), whole.result()
    for num_batches in killed_after:
        run = TrainingRun(spec, 7)
        kill_after(run, num_batches)
        resumed = TrainingRun(spec, 7)
        resumed.load_state_dict(through_a_file(run.state_dict()))
        assert resumed.epoch == run.epoch
        reports = bits(finish(resumed))
        assert reports == undisturbed[-len(reports) :]
        assert resumed.result() == result
        assert equal(weights(resumed.network), weights(whole.network))


def test_a_run_that_a_callback_stopped_can_simply_go_on() -> None:
    undisturbed = bits(finish(TrainingRun(make_spec(), 0)))
    run = TrainingRun(make_spec(), 0)
    kill_after(run, 2)
    assert bits(finish(run)) == undisturbed


def test_a_state_is_a_snapshot_of_plain_values() -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            assert all(type(key) in (str, int) for key in value)
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert type(value) in (torch.Tensor, int, float, str, bool, type(None))

    run = TrainingRun(make_spec(training={"epochs": 2}), 0)
    run.run_epoch()
    state = run.state_dict()
    check(state)
    copy = through_a_file(state)
    run.run_epoch()
    run.result()
    check(run.state_dict())
    assert equal(state["network"], copy["network"])
    assert equal(state["best"]["weights"], copy["best"]["weights"])
    assert not equal(state["network"], dict(run.network.state_dict()))


@pytest.mark.parametrize(
    ("changes", "seed", "message"),
    [
        ({"training": {"epochs": 4}}, 0, "another spec"),
        ({"network": {"drop_path": 0.2}}, 0, "another spec"),
        ({"architecture": "DARTS_V2"}, 0, "another spec"),
        ({"augmentation": {"cutout": 3}}, 0, "another spec"),
        ({"validation_portion": 0.3}, 0, "another spec"),
        ({}, 1, "seed 0, but this one has 1"),
    ],
)
def test_a_state_of_another_training_is_refused(
    changes: dict[str, Any], seed: int, message: str
) -> None:
    state = TrainingRun(make_spec(), 0).state_dict()
    with pytest.raises(CheckpointError, match=message):
        TrainingRun(make_spec(**changes), seed).load_state_dict(state)


def test_a_state_of_another_version_is_refused_and_what_changes_no_number_may_differ() -> None:
    state = TrainingRun(make_spec(), 0).state_dict()
    other = TrainingRun(make_spec(trials={"seeds": [0, 1]}, resources={"gpus": 1}), 0)
    other.load_state_dict(state)
    with pytest.raises(CheckpointError, match="version 99"):
        other.load_state_dict({**state, "version": 99})


@dataclass(frozen=True)
class WatchedImages(StoredImages):
    """Images that record when they are looked at."""

    looks: list[int] = field(default_factory=list)

    def in_order(self, batch_size: int) -> Iterator[LabelledImages]:
        """All images."""
        self.looks.append(len(self))
        return super().in_order(batch_size)

    def to(self, device: torch.device | str) -> "WatchedImages":
        """The same images: a test trains on the CPU."""
        return self


def watched(images: data.Images) -> WatchedImages:
    assert isinstance(images, StoredImages)
    return WatchedImages(images.pixels_nchw, images.labels_n, images.normalisation)


def test_test_images_influence_nothing_and_are_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = make_spec(training={"epochs": 4})
    honest = TrainingRun(spec, 0)
    reports, result = bits(finish(honest)), honest.result()
    loaded = data.load(spec.dataset)
    test = watched(loaded.test)
    # Other images under other labels: whoever looked at them would train or choose otherwise.
    poisoned = replace(test, pixels_nchw=255 - test.pixels_nchw, labels_n=9 - test.labels_n)
    monkeypatch.setattr(data, "load", lambda *_, **__: Dataset(loaded.train, poisoned))
    run = TrainingRun(spec, 0)
    with pytest.raises(RuntimeError, match="0 of 4 epochs are done; the test split is for after"):
        run.result()
    assert bits(finish(run)) == reports
    run.load_state_dict(run.state_dict())
    assert poisoned.looks == []
    measured = run.result()
    assert equal(weights(run.network), weights(honest.network))
    assert run.best is not None
    num_measured = 1 if run.best.epoch == run.epoch else 2
    assert len(poisoned.looks) == num_measured
    assert measured.last.loss != result.last.loss
    assert run.result() == measured
    resumed = TrainingRun(spec, 0)
    resumed.load_state_dict(through_a_file(run.state_dict()))
    assert resumed.result() == measured
    assert len(poisoned.looks) == num_measured


def test_the_best_epoch_is_measured_with_its_own_weights() -> None:
    run = TrainingRun(make_spec(), 0)
    run.run_epoch()
    finish(run)
    loaded = data.load(make_spec().dataset)
    earlier = weights(TrainingRun(make_spec(), 1).network)
    last = weights(run.network)
    test = watched(loaded.test)
    images = TestImages(test, {"again": loaded.test}, torch.device("cpu"))
    result = images.measure(run.network, 3, BestEpoch(2, 0.5, 1.0, earlier))
    assert equal(weights(run.network), last)
    assert result.best is not None
    assert (result.last.epoch, result.best.epoch) == (3, 2)
    assert result.last.extra_accuracies == {"again": result.last.accuracy}
    assert len(test.looks) == 2
    assert evaluate(main_head(run.network), loaded.test) == (
        result.last.loss,
        result.last.accuracy,
    )
    run.network.load_state_dict(earlier)
    assert evaluate(main_head(run.network), loaded.test) == (
        result.best.loss,
        result.best.accuracy,
    )
    same = images.measure(run.network, 2, BestEpoch(2, 0.5, 1.0, earlier))
    assert same.best is same.last


@pytest.mark.parametrize(
    ("accuracy", "loss", "better"),
    [(0.9, 9.0, True), (0.8, 0.9, True), (0.8, 1.0, False), (0.8, 1.1, False), (0.7, 0.1, False)],
)
def test_an_epoch_is_better_by_accuracy_and_of_equals_by_loss(
    accuracy: float, loss: float, better: bool
) -> None:
    assert BestEpoch(1, 0.8, 1.0, {}).is_worse_than(accuracy, loss) == better


def test_nothing_is_chosen_where_nothing_is_held_out() -> None:
    run = TrainingRun(make_spec(validation_portion=0.0, training={"epochs": 2}), 0)
    report = finish(run)[-1]
    assert report.best_epoch is None
    assert not any(name.startswith("validation") for name in report.metrics)
    result = run.result()
    assert result.best is None
    assert 0 <= result.last.accuracy <= 1


def test_held_out_images_train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(augmentation={"crop_padding": 0, "cutout": 0}, training={"batch_size": 2})
    whole = data.load(spec.dataset).train
    assert isinstance(whole, StoredImages)
    # Every image is told by a label of its own.
    numbered = StoredImages(whole.pixels_nchw, torch.arange(len(whole)), whole.normalisation)
    monkeypatch.setattr(
        data, "load", lambda *_, **__: Dataset(numbered, numbered.take(torch.arange(1)))
    )
    images = TrainingRun(spec, 0)._images
    trained_on = {
        int(label)
        for _ in range(images.batches.batches)
        for label in images.batches.next().labels_n
    }
    assert images.validation is not None
    held_out = {int(label) for batch in images.validation.in_order(100) for label in batch.labels_n}
    assert len(held_out) == len(images.validation) == len(whole) - spec.num_trained_on
    assert not trained_on & held_out
    assert len(trained_on | held_out) >= len(whole) - 1  # the last batch may lack an image


def test_divergence_says_where_and_what_to_try() -> None:
    run = TrainingRun(make_spec(training={"precision": "bfloat16"}), 0)
    run.run_epoch()

    def poison(progress: BatchProgress) -> None:
        with torch.no_grad():
            run.network.head.bias.fill_(math.inf)

    with pytest.raises(
        DivergedError, match=r"epoch 2, batch 2: the training loss is .*; try .* 'float32'"
    ):
        run.run_epoch(poison)


def test_divergence_at_the_last_batch_is_noticed() -> None:
    run = TrainingRun(make_spec(), 0)

    def poison(progress: BatchProgress) -> None:
        if progress.batch == progress.batches:
            with torch.no_grad():
                run.network.head.bias.fill_(math.nan)

    with pytest.raises(DivergedError, match="end of epoch 1: the validation loss is nan"):
        run.run_epoch(poison)


def test_a_genotype_with_nones_can_be_trained() -> None:
    edges = [["none", 0], ["sep_conv_3x3", 1], ["none", 0], ["none", 1]]
    cells = {"normal": edges, "normal_concat": [2, 3], "reduce": edges, "reduce_concat": [2, 3]}
    spec = make_spec(architecture={"kind": "cell", **cells}, training={"epochs": 2})
    run = TrainingRun(spec, 0)
    finish(run)
    assert math.isfinite(run.result().last.loss)


def test_the_preset_for_digits_can_start() -> None:
    assert "retrain-digits" in TRAINING_PRESETS
    spec = RetrainingSpec.model_validate({"preset": "retrain-digits", "architecture": "DARTS_V2"})
    run = TrainingRun(spec, spec.trials.seeds[0])
    kill_after(run, 1)
    assert run.epoch == 0
