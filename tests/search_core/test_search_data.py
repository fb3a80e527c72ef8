"""Searches on data sets of every way to read and to augment."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from search_core.errors import CheckpointError, DataNotFoundError
from search_core.pace import reproducible
from search_core.search import BatchProgress, EpochReport, SearchRun
from search_core.spec import SearchSpec
from search_core.spec.presets import merge
from tests.search_core.formats import Writer, write_cifar10, write_image_folder, write_imagenet

PAPERS = {"crop_padding": 4, "horizontal_flip": True, "auto_augment": "cifar10", "cutout": 16}
PHOTOGRAPHS = {"resized_crop": True, "horizontal_flip": True, "cutout": 6}


class KilledError(Exception):
    """What a test stops a run with."""


def make_spec(**sections: Any) -> SearchSpec:
    base = {
        "space": {"kind": "darts", "channels": 1, "cells": 3, "nodes": 1},
        "algorithm": {"architecture_learning_rate": 0.1},
        "training": {"epochs": 2, "batch_size": 10, "learning_rate": 0.1},
    }
    return SearchSpec.model_validate(merge(base, sections))


def finish(run: SearchRun) -> list[EpochReport]:
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    return reports


def bits(reports: list[EpochReport]) -> list[tuple[Any, ...]]:
    return [
        (
            reproducible(report.metrics),
            report.alphas,
            report.genotype,
        )
        for report in reports
    ]


def killed_after(run: SearchRun, num_batches: int) -> dict[str, Any]:
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


def write_streamed_folder(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    return write_image_folder(folder, patch, in_memory=False)


def write_streamed_imagenet(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    written = write_imagenet(folder, patch)
    return type(written)(
        written.dataset.model_copy(update={"in_memory": False}), written.train, written.test
    )


@pytest.mark.parametrize(
    ("write", "augmentation", "kills"),
    [
        (write_cifar10, PAPERS, range(1, 7)),
        (write_streamed_folder, PHOTOGRAPHS, (1, 3, 5)),
        (write_streamed_imagenet, {**PHOTOGRAPHS, "auto_augment": "imagenet"}, (4,)),
    ],
)
def test_killed_at_any_batch_a_resumed_run_gives_the_same_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Writer,
    augmentation: dict[str, Any],
    kills: Iterable[int],
) -> None:
    dataset = write(tmp_path, monkeypatch).dataset.model_dump()
    spec = make_spec(dataset=dataset, augmentation=augmentation)
    before = torch.get_rng_state()
    undisturbed = bits(finish(SearchRun(spec, 7, data_root=tmp_path)))
    assert torch.equal(before, torch.get_rng_state())
    for num_batches in kills:
        state = killed_after(SearchRun(spec, 7, data_root=tmp_path), num_batches)
        torch.rand(1)
        resumed = SearchRun(spec, 7, data_root=tmp_path)
        resumed.load_state_dict(state)
        reports = bits(finish(resumed))
        assert reports == undisturbed[-len(reports) :]


def test_a_search_learns_synthetic_images() -> None:
    spec = make_spec(
        space={"channels": 4},
        dataset={"name": "synthetic", "num_train": 1024, "image_shape": (1, 8, 8), "noise": 0.2},
        training={"epochs": 3, "batch_size": 32},
    )
    assert finish(SearchRun(spec, 0))[-1].metrics["validation_accuracy"] > 0.7


def test_augmentation_changes_training_and_not_measuring() -> None:
    dataset = {"name": "synthetic", "num_train": 64, "image_shape": (3, 8, 8)}
    plain, augmented = (
        SearchRun(make_spec(dataset=dataset, augmentation=augmentation), 0)
        for augmentation in ({}, {"crop_padding": 2, "horizontal_flip": True, "cutout": 4})
    )
    for one, other in (
        (plain._train, augmented._train),
        (plain._validation, augmented._validation),
    ):
        (measured,), (measured_too,) = one.in_order(64), other.in_order(64)
        assert torch.equal(measured.images_nchw, measured_too.images_nchw)
    for one_batches, other_batches in (
        (plain._train_batches, augmented._train_batches),
        (plain._validation_batches, augmented._validation_batches),
    ):
        one_batch, other_batch = one_batches.next(), other_batches.next()
        assert torch.equal(one_batch.labels_n, other_batch.labels_n)
        assert not torch.equal(one_batch.images_nchw, other_batch.images_nchw)


def test_a_state_of_another_augmentation_is_refused() -> None:
    dataset = {"name": "synthetic", "num_train": 64, "image_shape": (3, 8, 8)}
    state = SearchRun(make_spec(dataset=dataset), 0).state_dict()
    changed = make_spec(dataset=dataset, augmentation={"horizontal_flip": True})
    with pytest.raises(CheckpointError, match="augmentation"):
        SearchRun(changed, 0).load_state_dict(state)


def test_the_data_may_have_moved_when_a_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_cifar10(tmp_path / "old", monkeypatch)
    dataset = written.dataset.model_dump()
    run = SearchRun(make_spec(dataset=dataset), 0, data_root=tmp_path / "old")
    state = run.state_dict()
    expected = bits(finish(run))
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(DataNotFoundError, match=f"'cifar10' in {tmp_path}/old"):
        SearchRun(make_spec(dataset=dataset), 0, data_root=tmp_path / "old")
    moved = make_spec(dataset={**dataset, "root": "new"})
    resumed = SearchRun(moved, 0, data_root=tmp_path)
    resumed.load_state_dict(state)
    assert bits(finish(resumed)) == expected


def test_more_cores_read_ahead_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_streamed_folder(tmp_path, monkeypatch).dataset.model_dump()
    one, two = (
        make_spec(dataset=dataset, augmentation=PHOTOGRAPHS, resources={"cpus": cpus})
        for cpus in (1, 2)
    )
    assert bits(finish(SearchRun(one, 0, data_root=tmp_path))) == bits(
        finish(SearchRun(two, 0, data_root=tmp_path))
    )
