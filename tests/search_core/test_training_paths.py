"""A training of a path has all that one of cells has, but drop path and auxiliary head."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from search_core import data, published
from search_core.errors import CheckpointError
from search_core.path_network import PathNetwork
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingRun
from search_core.training_setup import build_network
from tests.search_core.test_training import (
    SMALL,
    bits,
    equal,
    finish,
    kill_after,
    make_spec,
    through_a_file,
    weights,
)

PATH: dict[str, Any] = {
    "kind": "path",
    "final_channels": 8,
    "steps": [
        {
            "level": 0,
            "stride": 1,
            "in_channels": 4,
            "out_channels": 6,
            "operation": "sharp_sep_conv",
            "settings": {"kernel_size": 5, "mid_multiplier": 2, "activation": "silu"},
        },
        {
            "level": 0,
            "stride": 2,
            "in_channels": 6,
            "out_channels": 6,
            "operation": "resizable_pool",
        },
        {
            "level": 1,
            "stride": 1,
            "in_channels": 6,
            "out_channels": 8,
            "operation": "conv",
            "settings": {"normalisation": "group"},
        },
    ],
}


def path_spec(**sections: Any) -> RetrainingSpec:
    """The spec of `make_spec` for a path, on which its network of cells is not laid."""
    cells = make_spec(**sections).model_dump(mode="json", exclude={"network", "architecture"})
    return RetrainingSpec.model_validate_json(
        RetrainingSpec.model_validate({**cells, "architecture": PATH}).model_dump_json()
    )


def test_its_network_is_the_path_s() -> None:
    network = build_network(path_spec(), 0)
    assert isinstance(network, PathNetwork)
    assert len(network.steps) == 3
    assert network.stem[0].in_channels == SMALL["image_shape"][0]  # type: ignore[index]
    assert equal(weights(network), weights(build_network(path_spec(), 0)))
    assert not equal(weights(network), weights(build_network(path_spec(), 1)))


def test_reports_of_a_run() -> None:
    run = TrainingRun(path_spec(), 0)
    reports = finish(run)
    for report in reports:
        assert set(report.metrics) == {
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "learning_rate",
            "seconds",
            "steps_per_second",
            "images_per_second",
            "peak_memory_bytes",
        }
        assert all(math.isfinite(value) for value in report.metrics.values())
    best = run.result().best
    assert best is not None
    assert best.epoch == reports[-1].best_epoch


@pytest.mark.parametrize(
    ("precision", "killed_after"), [("float32", (1, 4, 6, 12)), ("bfloat16", (7,))]
)
def test_killed_at_any_batch_a_resumed_run_gives_the_same_bits(
    precision: str, killed_after: tuple[int, ...]
) -> None:
    spec = path_spec(training={"precision": precision})
    before = torch.get_rng_state()
    whole = TrainingRun(spec, 7)
    undisturbed, result = bits(finish(whole)), whole.result()
    assert torch.equal(before, torch.get_rng_state())
    for num_batches in killed_after:
        run = TrainingRun(spec, 7)
        kill_after(run, num_batches)
        resumed = TrainingRun(spec, 7)
        resumed.load_state_dict(through_a_file(run.state_dict()))
        reports = bits(finish(resumed))
        assert reports == undisturbed[-len(reports) :]
        assert resumed.result() == result
        assert equal(weights(resumed.network), weights(whole.network))


def test_a_state_of_another_path_is_refused() -> None:
    state = TrainingRun(path_spec(), 0).state_dict()
    other = path_spec().model_copy(
        update={"architecture": published.get("HYPERCUBOID_HANDMADE").genotype}
    )
    with pytest.raises(CheckpointError, match="another spec"):
        TrainingRun(other, 0).load_state_dict(state)


def test_a_step_is_the_loss_s_own_with_smoothed_labels() -> None:
    spec = path_spec(training={"gradient_clip": 1e6, "weight_decay": 0.0})
    run, reference = TrainingRun(spec, 0), build_network(spec, 0)
    batch = run._images.batches.next()
    run._step(batch)
    loss = functional.cross_entropy(
        reference(batch.images_nchw).main_nk, batch.labels_n, label_smoothing=0.1
    )
    loss.backward()  # type: ignore[no-untyped-call]
    rate = run._step.optimizer.param_groups[0]["lr"]
    for trained, weight in zip(run.network.parameters(), reference.parameters(), strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(trained, weight - rate * weight.grad)


def test_a_path_learns() -> None:
    spec = path_spec(
        augmentation={"cutout": 0},
        dataset={"name": "synthetic", "num_train": 500, "num_classes": 4, "noise": 0.1},
        validation_portion=0.1,
        training={"epochs": 6, "batch_size": 32},
    )
    run = TrainingRun(spec, 0)
    assert finish(run)[-1].metrics["validation_accuracy"] > 0.9
    assert run.result().last.accuracy > 0.9


def test_the_preset_for_digits_trains_a_published_path() -> None:
    spec = RetrainingSpec.model_validate(
        {
            "preset": "retrain-digits",
            "architecture": "HYPERCUBOID_HANDMADE",
            "training": {"epochs": 1, "batch_size": 256},
        }
    )
    run = TrainingRun(spec, 0)
    assert sum(each.numel() for each in run.network.parameters()) == 1_035_882 - 2 * 32 * 9
    finish(run)
    assert math.isfinite(run.result().last.loss)
    assert data.load(spec.dataset).test
