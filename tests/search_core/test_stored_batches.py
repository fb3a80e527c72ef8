"""Batches whose numbers are drawn ahead, against batches that draw their own."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from search_core.augmentation import augment_as_drawn, augment_batch
from search_core.data import BatchSampler, LabelledImages, Normalisation, stored
from search_core.data.stored import StoredImages
from search_core.randomness import stream
from search_core.spec.augmentation import AugmentationSpec

CHANGES = {
    "nothing": AugmentationSpec(),
    "crops and flips": AugmentationSpec(crop_padding=2, horizontal_flip=True),
    "cutout": AugmentationSpec(horizontal_flip=True, cutout=3),
    "a policy": AugmentationSpec(crop_padding=1, auto_augment="svhn", cutout=2),
}


def images() -> StoredImages:
    generator = stream(0, "pixels")
    return StoredImages(
        torch.randint(256, (23, 3, 8, 6), generator=generator).to(torch.uint8),
        torch.arange(23),
        Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 255),
    )


def batches(augmentation: AugmentationSpec) -> stored.StoredBatches:
    return images().batches(
        5,
        augmentation,
        order_generator=stream(0, "order"),
        augmentation_generator=stream(0, "augmentation"),
    )


def one_by_one(augmentation: AugmentationSpec) -> Iterator[tuple[LabelledImages, Tensor]]:
    """Every batch with the state of the generator behind it."""
    sampler = BatchSampler(23, 5, stream(0, "order"))
    generator = stream(0, "augmentation")
    while True:
        batch = images().take(sampler.next())
        images_nchw = augment_batch(batch.pixels_nchw, augmentation, batch.normalisation, generator)
        yield LabelledImages(images_nchw, batch.labels_n), generator.get_state()


@pytest.mark.parametrize("ahead", [1, 3, 64])
@pytest.mark.parametrize("name", CHANGES)
def test_the_numbers_are_those_that_each_batch_would_draw(
    name: str, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_AHEAD", ahead)
    augmentation = CHANGES[name]
    found, expected = batches(augmentation), one_by_one(augmentation)
    assert torch.equal(found.state_dict()["augmentation"], stream(0, "augmentation").get_state())
    for _ in range(10):  # two passes and a half
        batch = found.next()
        expected_batch, state = next(expected)
        assert torch.equal(batch.images_nchw, expected_batch.images_nchw)
        assert torch.equal(batch.labels_n, expected_batch.labels_n)
        assert torch.equal(found.state_dict()["augmentation"], state)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("num_taken", [0, 3, 4, 6])
def test_they_go_on_from_any_batch(name: str, num_taken: int) -> None:
    first = batches(CHANGES[name])
    for _ in range(num_taken):
        first.next()
    state = copy.deepcopy(first.state_dict())
    resumed = batches(CHANGES[name])
    resumed.next()
    resumed.load_state_dict(state)
    for _ in range(6):
        assert torch.equal(first.next().images_nchw, resumed.next().images_nchw)


def test_a_batch_is_made_on_the_device_of_its_pixels() -> None:
    # None of it asks the device, which need not be there.
    augmentation = AugmentationSpec(crop_padding=2, horizontal_flip=True, cutout=3)
    with FakeTensorMode():
        images_nchw = augment_as_drawn(
            torch.empty(4, 3, 8, 8, dtype=torch.uint8, device="cuda"),
            augmentation,
            lambda pixels_nchw: pixels_nchw.float(),
            torch.zeros(5, 4, dtype=torch.int64, device="cuda"),
        )
    assert images_nchw.device.type == "cuda"
    assert images_nchw.shape == (4, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_batches() -> None:
    augmentation = AugmentationSpec(crop_padding=2, horizontal_flip=True, cutout=3)
    on_gpu = (
        images()
        .to("cuda")
        .batches(
            5,
            augmentation,
            order_generator=stream(0, "order"),
            augmentation_generator=stream(0, "augmentation"),
        )
    )
    expected = batches(augmentation)
    for _ in range(6):
        ours, theirs = on_gpu.next(), expected.next()
        torch.testing.assert_close(ours.images_nchw.cpu(), theirs.images_nchw)
        assert torch.equal(ours.labels_n.cpu(), theirs.labels_n)
