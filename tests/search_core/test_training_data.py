"""The papers' trainings, shrunk, on files in the real formats."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search_core.errors import DataNotFoundError
from search_core.pace import reproducible
from search_core.reports import BatchProgress
from search_core.spec.presets import merge
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingReport, TrainingRun
from tests.search_core.formats import NUM_TRAIN, write_cifar10, write_cifar10_1, write_imagenet

SHRUNK: dict[str, Any] = {
    "architecture": {
        "kind": "cell",
        "normal": [["sep_conv_3x3", 0], ["skip_connect", 1]],
        "normal_concat": [2],
        "reduce": [["max_pool_3x3", 0], ["sep_conv_3x3", 1]],
        "reduce_concat": [2],
    },
    "network": {"channels": 2, "cells": 3},
    "training": {
        "epochs": 2,
        "batch_size": 10,
        "schedule": {"kind": "cosine_power", "warmup_epochs": 1},
    },
}


class KilledError(Exception):
    """What a test stops a run with."""


PATH: dict[str, Any] = {
    "final_channels": 6,
    "steps": [
        {
            "level": 0,
            "stride": 2,
            "in_channels": 3,
            "out_channels": 4,
            "operation": "sharp_sep_conv",
            "settings": {"kernel_size": 5, "activation": "gelu", "normalisation": "group"},
        }
    ],
}


def shrunk(preset: str, **sections: Any) -> RetrainingSpec:
    return RetrainingSpec.model_validate(merge(SHRUNK, {"preset": preset, **sections}))


def shrunk_path(preset: str, **sections: Any) -> RetrainingSpec:
    """The same of a path, under which the preset's network of cells is not laid."""
    training = {"training": SHRUNK["training"], "architecture": PATH}
    return RetrainingSpec.model_validate(merge(training, {"preset": preset, **sections}))


def finish(run: TrainingRun) -> list[dict[str, float]]:
    """All measurements but the time that they took."""
    measured = []
    while not run.finished:
        report: TrainingReport = run.run_epoch()
        measured.append(reproducible(report.metrics))
    return measured


def saved_after(run: TrainingRun, num_batches: int) -> dict[str, Any]:
    """The state of a run at a batch, as a checkpoint would hold it."""
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
    buffer = io.BytesIO()
    torch.save(run.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, weights_only=True)
    return state


def check_resumes(spec: RetrainingSpec, data_root: Path, kills: tuple[int, ...]) -> TrainingRun:
    before = torch.get_rng_state()
    whole = TrainingRun(spec, 7, data_root=data_root)
    undisturbed, result = finish(whole), whole.result()
    assert torch.equal(before, torch.get_rng_state())
    for num_batches in kills:
        state = saved_after(TrainingRun(spec, 7, data_root=data_root), num_batches)
        torch.rand(1)
        resumed = TrainingRun(spec, 7, data_root=data_root)
        resumed.load_state_dict(state)
        measured = finish(resumed)
        assert measured == undisturbed[-len(measured) :]
        assert resumed.result() == result
    return whole


@pytest.mark.parametrize("of", [shrunk, shrunk_path])
def test_cifar10_with_autoaugment_and_cifar10_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Callable[..., RetrainingSpec]
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    spec = of("retrain-cifar10", validation_portion=0.5)
    assert spec.augmentation.auto_augment == "cifar10"
    with pytest.raises(DataNotFoundError, match="cifar10_1"):
        TrainingRun(spec, 7, data_root=tmp_path)
    write_cifar10_1(tmp_path, monkeypatch)
    result = check_resumes(spec, tmp_path, kills=(1, 3, 5)).result()
    assert result.best is not None
    for measurement in (result.last, result.best):
        assert set(measurement.extra_accuracies) == {"cifar10_1"}


def test_imagenet_streamed_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_imagenet(tmp_path, monkeypatch)
    spec = shrunk(
        "retrain-imagenet",
        dataset={"name": "imagenet", "image_size": 28, "in_memory": False},
        resources={"cpus": 1},
    )
    assert spec.augmentation.resized_crop
    assert spec.num_trained_on == NUM_TRAIN
    run = check_resumes(spec, tmp_path, kills=(8,))
    assert run.result().best is None
