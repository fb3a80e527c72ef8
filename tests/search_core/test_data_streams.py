"""Images that are read batch by batch."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from search_core import data
from search_core.data import Batches, Images, LabelledImages, StoredImages, StreamedImages
from search_core.data.sampling import halves
from search_core.randomness import stream
from search_core.spec.augmentation import AugmentationSpec
from tests.search_core.formats import NUM_TRAIN, write_image_folder

AUGMENTED = AugmentationSpec(
    resized_crop=True, horizontal_flip=True, auto_augment="imagenet", cutout=6
)
BATCH = 14
BATCHES = NUM_TRAIN // BATCH


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamedImages:
    dataset = write_image_folder(tmp_path, monkeypatch, in_memory=False).dataset
    train = data.load(dataset, tmp_path).train
    assert isinstance(train, StreamedImages)
    return train


@pytest.fixture
def stored(tmp_path: Path, streamed: StreamedImages, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.undo()
    dataset = write_image_folder(tmp_path / "again", monkeypatch, in_memory=True).dataset
    return data.load(dataset, tmp_path / "again").train


def batches_of(images: Images, augmentation: AugmentationSpec, seed: int = 0) -> Batches:
    return images.batches(
        BATCH,
        augmentation,
        order_generator=stream(seed, "order"),
        augmentation_generator=stream(seed, "augmentation"),
    )


def take(batches: Batches, num_batches: int) -> list[LabelledImages]:
    return [batches.next() for _ in range(num_batches)]


def assert_same(some: list[LabelledImages], others: list[LabelledImages]) -> None:
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.images_nchw, other.images_nchw)
        assert torch.equal(one.labels_n, other.labels_n)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def test_without_augmentation_they_are_the_images_in_memory(
    streamed: StreamedImages, stored: Images
) -> None:
    assert_same(list(streamed.in_order(25)), list(stored.in_order(25)))
    unchanged = AugmentationSpec()
    assert_same(
        take(batches_of(streamed, unchanged), 2 * BATCHES),
        take(batches_of(stored, unchanged), 2 * BATCHES),
    )


@pytest.mark.parametrize("position", range(2 * BATCHES + 1))
def test_resumed_at_any_batch_they_are_the_same(streamed: StreamedImages, position: int) -> None:
    batches = batches_of(streamed, AUGMENTED)
    take(batches, position)
    state = through_a_file(batches.state_dict())
    expected = take(batches, BATCHES)
    resumed = batches_of(streamed, AUGMENTED, seed=1)
    take(resumed, 1)  # reading already, of another pass
    resumed.load_state_dict(state)
    assert_same(take(resumed, BATCHES), expected)


@pytest.mark.parametrize("position", range(2 * BATCHES + 1))
def test_batches_in_memory_resume_too(stored: Images, position: int) -> None:
    augmented = AUGMENTED.model_copy(update={"resized_crop": False, "crop_padding": 3})
    batches = batches_of(stored, augmented)
    take(batches, position)
    state = through_a_file(batches.state_dict())
    expected = take(batches, BATCHES)
    resumed = batches_of(stored, augmented, seed=1)
    resumed.load_state_dict(state)
    assert_same(take(resumed, BATCHES), expected)


def test_the_number_of_reading_processes_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_image_folder(tmp_path, monkeypatch, in_memory=False).dataset
    before = torch.get_rng_state()
    alone, helped = (data.load(dataset, tmp_path, num_workers=count).train for count in (0, 2))
    num_batches = BATCHES + 1
    assert_same(
        take(batches_of(alone, AUGMENTED), num_batches),
        take(batches_of(helped, AUGMENTED), num_batches),
    )
    assert torch.equal(before, torch.get_rng_state())


def test_every_pass_varies_the_images_anew(streamed: StreamedImages) -> None:
    # One image only: two passes show it in the same order.
    one = streamed.take(torch.tensor([5]))
    batches = one.batches(
        1,
        AUGMENTED,
        order_generator=stream(0, "order"),
        augmentation_generator=stream(0, "augmentation"),
    )
    first, second = take(batches, 2)
    assert not torch.equal(first.images_nchw, second.images_nchw)
    assert torch.equal(first.labels_n, second.labels_n)


def test_halves_share_no_file(streamed: StreamedImages) -> None:
    weights, alphas = halves(streamed, 0.6, stream(0, "halves"))
    chosen = [*weights.indices_n.tolist(), *alphas.indices_n.tolist()]
    assert sorted(chosen) == list(range(NUM_TRAIN))
    (everything,) = streamed.in_order(NUM_TRAIN)
    (part,) = weights.in_order(NUM_TRAIN)
    assert torch.equal(part.images_nchw, everything.images_nchw[weights.indices_n])


def test_a_batch_must_fit(streamed: StreamedImages, stored: Images) -> None:
    assert isinstance(stored, StoredImages)
    for images in (streamed, stored):
        with pytest.raises(ValueError, match="batches of 14 out of 13 images"):
            batches_of(images.take(torch.arange(13)), AugmentationSpec())
