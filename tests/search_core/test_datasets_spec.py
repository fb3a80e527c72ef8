"""Data sets and augmentation in the spec: what can be named, and what is refused."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from search_core import data
from search_core.spec import AugmentationSpec, SearchSpec
from search_core.spec.dataset_base import BaseDataset
from search_core.spec.datasets import (
    IN_MEMORY_LIMIT,
    DatasetSpec,
    DigitsDataset,
    ImageFolderDataset,
    ImagenetDataset,
    SyntheticDataset,
)

FOLDER = {
    "name": "image_folder",
    "root": "cats",
    "image_size": 64,
    "num_classes": 2,
    "num_train": 2000,
    "num_test": 100,
}
DATASETS: tuple[dict[str, Any], ...] = (
    {"name": "digits"},
    {"name": "synthetic", "image_shape": [2, 9, 12], "num_classes": 3, "noise": 1.0},
    {"name": "cifar10", "download": True},
    {"name": "cifar100", "root": "sets/cifar"},
    {"name": "svhn", "root": "/sets/svhn"},
    {"name": "mnist"},
    {"name": "emnist", "split": "letters"},
    {"name": "fashion_mnist"},
    {"name": "stl10"},
    {"name": "imagenet", "image_size": 64},
    {**FOLDER, "mean": [0.5, 0.5, 0.5], "in_memory": False},
)
ADAPTER: TypeAdapter[BaseDataset] = TypeAdapter(DatasetSpec)


def search(**sections: Any) -> SearchSpec:
    body = {"space": {"kind": "darts"}, **sections}
    return SearchSpec.model_validate_json(json.dumps(body))


def refusal(**sections: Any) -> tuple[str, str]:
    """The JSON pointer and the message of the one error."""
    with pytest.raises(ValidationError) as caught:
        search(**sections)
    (error,) = caught.value.errors()
    path = [*error["loc"], *error.get("ctx", {}).get("path", ())]
    return "/" + "/".join(map(str, path)), error["msg"]


@pytest.mark.parametrize("fields", DATASETS, ids=lambda fields: fields["name"])
def test_every_kind_round_trips_and_knows_its_facts(fields: dict[str, Any]) -> None:
    spec = search(dataset=fields)
    assert spec.dataset.name == fields["name"]
    assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec
    dumped = spec.dataset.model_dump(mode="json")
    assert {name: dumped[name] for name in fields} == fields
    facts = spec.dataset.facts
    assert len(facts.mean) == len(facts.std) == facts.image_shape[0]
    assert all(
        0 <= mean <= 1 and 0 < std <= 0.5 for mean, std in zip(facts.mean, facts.std, strict=True)
    )
    assert facts.num_train >= facts.num_classes


def test_every_kind_can_be_named_and_loaded() -> None:
    names = {fields["name"] for fields in DATASETS}
    assert names == set(data.REGISTRY)
    schema = SearchSpec.model_json_schema()
    assert set(schema["properties"]["dataset"]["discriminator"]["mapping"]) == names


def test_digits_are_what_is_meant_without_a_name() -> None:
    assert search().dataset == search(dataset={}).dataset == DigitsDataset()
    assert search(dataset={"train_portion": 0.6}).dataset == DigitsDataset(train_portion=0.6)


def test_facts_follow_the_chosen_sizes() -> None:
    synthetic = ADAPTER.validate_python({**DATASETS[1], "num_train": 40, "num_test": 9})
    facts = synthetic.facts
    assert facts.image_shape == (2, 9, 12)
    assert (facts.num_train, facts.num_test, facts.num_classes) == (40, 9, 3)
    folder = ADAPTER.validate_python(FOLDER).facts
    assert folder.image_shape == (3, 64, 64)
    assert (folder.num_train, folder.num_test, folder.num_classes) == (2000, 100, 2)
    assert ImagenetDataset(name="imagenet").facts.image_shape == (3, 224, 224)
    letters = ADAPTER.validate_python({"name": "emnist", "split": "letters"}).facts
    assert (letters.num_classes, letters.num_train) == (26, 124_800)


def test_what_is_streamed_is_decided_by_size_unless_said() -> None:
    for fields in DATASETS[:9]:
        dataset = ADAPTER.validate_python(fields)
        assert dataset.facts.num_bytes <= IN_MEMORY_LIMIT
        assert not dataset.streamed
    assert ImagenetDataset(name="imagenet").streamed
    assert not ImagenetDataset(name="imagenet", in_memory=True).streamed
    assert not ADAPTER.validate_python(FOLDER).streamed
    assert ADAPTER.validate_python({**FOLDER, "in_memory": False}).streamed
    # 3 * 64 * 64 bytes for each image.
    for num_train, streamed in ((174_762 - 100, False), (174_763 - 100, True)):
        folder = ADAPTER.validate_python({**FOLDER, "num_train": num_train})
        assert isinstance(folder, ImageFolderDataset)
        assert folder.streamed is streamed


@pytest.mark.parametrize(
    ("dataset", "pointer", "message"),
    [
        ({"name": "cifar"}, "/dataset", "does not match any of the expected tags"),
        ({"name": "cifar10_1"}, "/dataset", "does not match any of the expected tags"),
        ({"name": "digits", "root": "x"}, "/dataset/digits/root", "Extra inputs"),
        ({"name": "imagenet", "download": True}, "/dataset/imagenet/download", "Extra inputs"),
        ({"name": "emnist", "split": "all"}, "/dataset/emnist/split", "'byclass', 'bymerge'"),
        ({"name": "cifar10", "root": "../x"}, "/dataset/cifar10/root", "must not contain"),
        ({"name": "cifar10", "root": "a\x00"}, "/dataset/cifar10/root", "should match pattern"),
        (
            {"name": "cifar10", "root": "/etc", "download": True},
            "/dataset/cifar10/root",
            "leave root out or make it relative",
        ),
        ({"name": "image_folder"}, "", "Field required"),
        (
            {"name": "synthetic", "num_train": 5},
            "/dataset/synthetic/num_train",
            "5 images cannot show all of 10 classes",
        ),
        (
            {"name": "synthetic", "num_train": 1_000_000, "image_shape": [3, 64, 64]},
            "/dataset/synthetic/num_train",
            "bytes; at most 2,147,483,648",
        ),
        # The two reductions of a cell network need 4x4 pixels.
        (
            {"name": "synthetic", "image_shape": [3, 4, 3]},
            "/dataset/image_shape",
            "4x3 pixels are too small for 2 reductions, which need at least 4x4",
        ),
        ({"name": "imagenet", "image_size": 3}, "/dataset/image_size", "3x3 pixels are too small"),
        ({**FOLDER, "image_size": 2}, "/dataset/image_size", "2x2 pixels are too small"),
    ],
)
def test_a_data_set_that_cannot_work_is_refused(
    dataset: dict[str, Any], pointer: str, message: str
) -> None:
    if not pointer:
        with pytest.raises(ValidationError, match=message):
            search(dataset=dataset)
        return
    assert refusal(dataset=dataset)[0] == pointer
    assert message in refusal(dataset=dataset)[1]


def test_the_smallest_images_that_work() -> None:
    spec = search(dataset={"name": "synthetic", "image_shape": [1, 4, 4]})
    assert spec.dataset.facts.image_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("dataset", "augmentation", "field", "message"),
    [
        ({"name": "digits"}, {"crop_padding": 8}, "crop_padding", "must be below 8"),
        ({"name": "digits"}, {"cutout": 9}, "cutout", "must be at most 8"),
        ({"name": "digits"}, {"auto_augment": "svhn"}, "auto_augment", "1 channels and 17 levels"),
        (DATASETS[1], {"auto_augment": "svhn"}, "auto_augment", "2 channels and 256 levels"),
        ({"name": "cifar10"}, {"resized_crop": True}, "resized_crop", "use crop_padding"),
        (FOLDER, {"resized_crop": True}, "resized_crop", "kept in memory"),
        (
            {"name": "imagenet"},
            {"resized_crop": True, "crop_padding": 4},
            "resized_crop",
            "choose one of crop_padding and resized_crop",
        ),
    ],
)
def test_an_augmentation_that_does_not_fit_is_refused(
    dataset: dict[str, Any], augmentation: dict[str, Any], field: str, message: str
) -> None:
    pointer, said = refusal(dataset=dataset, augmentation=augmentation)
    assert pointer == f"/augmentation/{field}"
    assert message in said


def test_augmentations_that_fit() -> None:
    paper = {"crop_padding": 4, "horizontal_flip": True, "auto_augment": "cifar10", "cutout": 16}
    assert search(dataset={"name": "cifar10"}, augmentation=paper).augmentation.cutout == 16
    search(dataset={"name": "mnist"}, augmentation={"auto_augment": "svhn"})
    search(dataset={"name": "imagenet"}, augmentation={"resized_crop": True})
    search(dataset={**FOLDER, "in_memory": False}, augmentation={"resized_crop": True})
    assert search().augmentation == AugmentationSpec()


def test_a_synthetic_data_set_may_be_as_large_as_the_limit() -> None:
    dataset = SyntheticDataset(
        name="synthetic", image_shape=(1, 32, 32), num_train=1_000_000, num_test=1_000_000
    )
    assert dataset.facts.num_bytes <= IN_MEMORY_LIMIT
