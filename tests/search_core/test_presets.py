"""The presets are the settings of the papers, to the letter."""

import pytest
from pydantic import ValidationError

from search_core.spec import PRESETS, AugmentationSpec, SearchSpec
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.networks import CellNetworkSpec
from search_core.spec.presets import TRAINING_PRESETS, merge
from search_core.spec.retraining import RetrainingSpec
from search_core.spec.schedules import CosinePowerSchedule, CosineSchedule
from search_core.spec.spaces import CellSpace

DARTS_AUGMENTATION = AugmentationSpec(crop_padding=4, horizontal_flip=True)
SHARP_DARTS_AUGMENTATION = AugmentationSpec(
    crop_padding=4, horizontal_flip=True, auto_augment="cifar10", cutout=16
)


def search(name: str) -> SearchSpec:
    kind = PRESETS[name].spec["space"]["kind"]
    return SearchSpec.model_validate({"preset": name, "space": {"kind": kind}})


def training(name: str) -> RetrainingSpec:
    return RetrainingSpec.model_validate({"preset": name, "architecture": "DARTS_V2"})


@pytest.mark.parametrize(
    ("name", "order"),
    [("darts-cifar10", "first"), ("darts-cifar10-second-order", "second")],
)
def test_darts(name: str, order: str) -> None:
    spec = search(name)
    assert (spec.space.kind, spec.dataset.name) == ("darts", "cifar10")
    assert isinstance(spec.space, CellSpace)
    assert (spec.space.channels, spec.space.cells, spec.space.nodes) == (16, 8, 4)
    assert (spec.training.epochs, spec.training.batch_size) == (50, 64)
    assert spec.training.learning_rate == 0.025
    assert spec.training.schedule == CosineSchedule(kind="cosine", min_learning_rate=0.001)
    assert (spec.algorithm.order, spec.augmentation) == (order, DARTS_AUGMENTATION)


def test_sharpdarts() -> None:
    spec = search("sharpdarts-cifar10")
    assert isinstance(spec.space, CellSpace)
    assert (spec.space.kind, spec.space.family) == ("sharp_darts", "sharp")
    assert (spec.space.channels, spec.space.cells, spec.space.nodes) == (16, 8, 4)
    assert (spec.training.epochs, spec.training.batch_size) == (120, 48)
    assert spec.training.learning_rate == 0.025
    assert spec.training.schedule == CosinePowerSchedule(
        kind="cosine_power", power=2, warmup_epochs=5, min_learning_rate=1e-4
    )
    assert spec.augmentation == SHARP_DARTS_AUGMENTATION


def test_the_hypercuboid() -> None:
    spec = search("hypercuboid-cifar10")
    assert isinstance(spec.space, HyperCuboidSpace)
    assert (len(spec.space.positions), len(spec.space.operations)) == (8, 32)
    assert (spec.space.channels, spec.space.levels) == ((32, 64, 128, 256), 4)
    assert (spec.training.epochs, spec.training.batch_size) == (120, 64)
    assert spec.training.schedule == search("sharpdarts-cifar10").training.schedule
    assert (spec.algorithm.weighting, spec.algorithm.order) == ("max_w", "first")
    assert (spec.dataset.name, spec.augmentation) == ("cifar10", SHARP_DARTS_AUGMENTATION)


def test_retraining_on_cifar10() -> None:
    spec = training("retrain-cifar10")
    assert isinstance(spec.network, CellNetworkSpec)
    assert (spec.network.form, spec.network.channels, spec.network.cells) == ("cifar", 36, 20)
    assert (spec.network.auxiliary_weight, spec.network.drop_path) == (0.4, 0.2)
    assert (spec.dataset.name, spec.extra_tests) == ("cifar10", ("cifar10_1",))
    assert (spec.training.epochs, spec.training.batch_size) == (2000, 64)
    assert (spec.training.learning_rate, spec.training.gradient_clip) == (0.025, 5)
    assert (spec.training.momentum, spec.training.weight_decay) == (0.9, 3e-4)
    assert spec.training.schedule == CosinePowerSchedule(
        kind="cosine_power", power=2, warmup_epochs=5, min_learning_rate=1e-8
    )
    assert spec.augmentation == SHARP_DARTS_AUGMENTATION
    assert spec.num_trained_on == 50_000


def test_retraining_on_imagenet() -> None:
    spec = training("retrain-imagenet")
    assert isinstance(spec.network, CellNetworkSpec)
    assert (spec.network.form, spec.network.channels, spec.network.cells) == ("imagenet", 48, 14)
    assert (spec.dataset.name, spec.training.epochs) == ("imagenet", 300)
    assert spec.training.weight_decay == 1e-4
    schedule = spec.training.schedule
    assert isinstance(schedule, CosinePowerSchedule)
    assert (schedule.power, schedule.warmup_epochs) == (10, 10)


def test_presets_know_what_starts_from_them() -> None:
    assert {preset.kind for preset in PRESETS.values()} == {"search"}
    assert {preset.kind for preset in TRAINING_PRESETS.values()} == {"training"}
    assert not set(PRESETS) & set(TRAINING_PRESETS)
    for presets in (PRESETS, TRAINING_PRESETS):
        assert all(preset.summary for preset in presets.values())


def test_a_preset_of_the_other_kind_is_refused() -> None:
    message = "'retrain-digits' is for a training, and this is a search; choose from: digits-quick"
    with pytest.raises(ValidationError, match=message):
        SearchSpec.model_validate({"preset": "retrain-digits", "space": {"kind": "darts"}})
    with pytest.raises(ValidationError, match="'digits-quick' is for a search, and this is a tr"):
        RetrainingSpec.model_validate({"preset": "digits-quick", "architecture": "DARTS_V2"})
    with pytest.raises(ValidationError, match="unknown preset 'x'; choose from: retrain-digits"):
        RetrainingSpec.model_validate({"preset": "x", "architecture": "DARTS_V2"})


def test_another_data_set_or_kind_replaces_the_presets_whole() -> None:
    base = {
        "dataset": {"name": "cifar10", "download": True},
        "training": {"schedule": {"kind": "cosine_power", "power": 2}, "epochs": 5},
    }
    override = {"dataset": {"name": "digits"}, "training": {"schedule": {"kind": "constant"}}}
    assert merge(base, override) == {
        "dataset": {"name": "digits"},
        "training": {"schedule": {"kind": "constant"}, "epochs": 5},
    }
    assert merge(base, {"dataset": {"download": False}})["dataset"] == {
        "name": "cifar10",
        "download": False,
    }
