from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from search_core.augmentation import (
    augment_batch,
    auto_augment,
    centred,
    cutout,
    random_crop,
    random_flip,
    seeded,
    single_image,
)
from search_core.data import Normalisation
from search_core.randomness import stream
from search_core.spec.augmentation import AugmentationSpec, AutoAugmentPolicy

EVERYTHING = AugmentationSpec(crop_padding=2, horizontal_flip=True, auto_augment="svhn", cutout=3)
NORMALISE = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 255)


def random_pixels(num_images: int, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    shape = (num_images, 3, size, size)
    return torch.randint(256, shape, generator=generator).to(torch.uint8)


def as_stored(pixels_chw: Tensor) -> Tensor:
    """Instead of a normalisation, so that a test sees the pixels."""
    return pixels_chw


@pytest.fixture(autouse=True)
def _global_random_state_is_kept() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


# Two ways, one distribution: whole batches, and images one by one through torchvision.


def in_a_batch(image_chw: Tensor, augmentation: AugmentationSpec, times: int) -> Tensor:
    pixels_nchw = image_chw.expand(times, -1, -1, -1)
    return augment_batch(pixels_nchw, augmentation, as_stored, stream(0, "batch"))


def one_by_one(image_chw: Tensor, augmentation: AugmentationSpec, times: int) -> Tensor:
    size = image_chw.shape[-1]
    # What the centre is cut out of, so that the cut-out is the image.
    around = functional.pad(image_chw, (0, round(size * 256 / 224) - size) * 2)
    assert torch.equal(centred(size)(around), image_chw)
    transform = single_image(augmentation, size, as_stored)
    images = []
    for seed in range(times):
        with seeded(seed):
            images.append(transform(around))
    return torch.stack(images)


WAYS = pytest.mark.parametrize("way", [in_a_batch, one_by_one])


@WAYS
def test_every_place_and_side_is_equally_likely(
    way: Callable[[Tensor, AugmentationSpec, int], Tensor],
) -> None:
    size, padding, times = 6, 1, 1800
    image_chw = torch.arange(1, size * size + 1, dtype=torch.uint8).reshape(1, size, size)
    padded_chw = functional.pad(image_chw, (padding,) * 4)
    possible = set()
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            cut_chw = padded_chw[:, down : down + size, right : right + size]
            possible |= {
                tuple(cut_chw.flatten().tolist()),
                tuple(cut_chw.flip(-1).flatten().tolist()),
            }
    augmentation = AugmentationSpec(crop_padding=padding, horizontal_flip=True)
    augmented = way(image_chw, augmentation, times)
    seen = Counter(tuple(each.flatten().tolist()) for each in augmented)
    assert set(seen) == possible
    expected = times / len(possible)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    # 17 degrees of freedom: exceeded by chance once in a million times.
    assert len(possible) == 18
    assert chi_square < 60


@WAYS
def test_cutout_covers_each_pixel_as_often_as_it_should(
    way: Callable[[Tensor, AugmentationSpec, int], Tensor],
) -> None:
    size, length, times = 6, 3, 1500
    image_chw = torch.ones((1, size, size), dtype=torch.uint8)
    covered_hw = (way(image_chw, AugmentationSpec(cutout=length), times) == 0).float().mean(0)[0]
    # Around each of the centres: from one pixel before to one after, within the image.
    side_s = torch.tensor([2, 3, 3, 3, 3, 2]) / size
    expected_hw = side_s[:, None] * side_s
    deviation_hw = (expected_hw * (1 - expected_hw) / times).sqrt()
    assert bool(((covered_hw - expected_hw).abs() < 5 * deviation_hw).all())


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_policies_are_torchvisions_on_both_ways(policy: AutoAugmentPolicy) -> None:
    pixels_nchw = random_pixels(6, size=14)
    generator = stream(0, "batch")
    state = generator.get_state()
    augmented_nchw = auto_augment(pixels_nchw, policy, generator)
    transform = v2.AutoAugment(v2.AutoAugmentPolicy(policy))
    alone = single_image(AugmentationSpec(auto_augment=policy), 14, as_stored)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        assert torch.equal(augmented_nchw, torch.stack([transform(each) for each in pixels_nchw]))
        assert torch.equal(generator.get_state(), torch.get_rng_state())
        torch.set_rng_state(state)
        around_nchw = functional.pad(pixels_nchw, (1, 1, 1, 1))
        assert torch.equal(augmented_nchw, torch.stack([alone(each) for each in around_nchw]))
    assert augmented_nchw.dtype == torch.uint8
    assert not torch.equal(augmented_nchw, pixels_nchw)


# The order: what is padded is black before normalisation, what is cut out is 0 after it.


def test_padding_is_black_and_cutout_is_the_mean() -> None:
    white_nchw = torch.full((200, 3, 8, 8), 255, dtype=torch.uint8)
    augmentation = AugmentationSpec(crop_padding=4, cutout=2)
    images_nchw = augment_batch(white_nchw, augmentation, NORMALISE, stream(0, "batch"))
    black, white = (NORMALISE(torch.full((3, 1, 1), level)) for level in (0, 255))
    for channel in range(3):
        levels = set(images_nchw[:, channel].flatten().tolist())
        assert levels == {float(black[channel]), 0.0, float(white[channel])}


def test_without_augmentation_a_batch_is_normalised_and_nothing_is_drawn() -> None:
    pixels_nchw, generator = random_pixels(5), stream(0, "batch")
    state = generator.get_state()
    images_nchw = augment_batch(pixels_nchw, AugmentationSpec(), NORMALISE, generator)
    assert images_nchw.dtype == torch.float32
    expected_nchw = v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])(pixels_nchw / 255)
    torch.testing.assert_close(images_nchw, expected_nchw)
    assert torch.equal(generator.get_state(), state)


def test_a_batch_is_drawn_from_its_generator_alone() -> None:
    def augmented(seed: int) -> Tensor:
        return augment_batch(random_pixels(9), EVERYTHING, NORMALISE, stream(seed, "batch"))

    assert torch.equal(augmented(0), augmented(0))
    assert not torch.equal(augmented(0), augmented(1))
    assert augmented(0).shape == (9, 3, 8, 8)


def test_each_image_of_a_batch_varies_on_its_own() -> None:
    pixels_nchw = random_pixels(1).expand(50, -1, -1, -1)
    changes: list[Callable[[torch.Generator], Tensor]] = [
        lambda generator: random_crop(pixels_nchw, 2, generator),
        lambda generator: random_flip(pixels_nchw, generator),
        lambda generator: auto_augment(pixels_nchw, "cifar10", generator),
        lambda generator: cutout(pixels_nchw, 3, generator),
    ]
    for change in changes:
        generator = stream(0, "batch")
        changed_nchw = change(generator)
        assert len({tuple(image.flatten().tolist()) for image in changed_nchw}) > 1
        assert not torch.equal(changed_nchw, change(generator))


def test_images_that_are_not_square() -> None:
    pixels_nchw = random_pixels(40)[:, :, :5]
    images_nchw = augment_batch(pixels_nchw, EVERYTHING, NORMALISE, stream(0, "batch"))
    assert images_nchw.shape == (40, 3, 5, 8)


def test_resized_crops_have_the_size_and_differ_by_seed() -> None:
    transform = single_image(AugmentationSpec(resized_crop=True, cutout=4), 12, NORMALISE)
    photograph_chw = random_pixels(1, size=40)[0, :, :30]

    def crop(seed: int) -> Tensor:
        with seeded(seed):
            return transform(photograph_chw)

    assert crop(0).shape == (3, 12, 12)
    assert torch.equal(crop(3), crop(3))
    assert not torch.equal(crop(3), crop(4))


def test_the_centre_keeps_the_shape_of_things() -> None:
    # A white disc stays round, whichever side of the photograph is longer.
    rows = torch.arange(64)[:, None] - 31.5
    columns = torch.arange(128)[None, :] - 63.5
    disc_hw = ((rows**2 + columns**2) < 20**2).to(torch.uint8) * 255
    for photograph_hw in (disc_hw, disc_hw.T):
        small_chw = centred(28)(photograph_hw.expand(3, -1, -1))
        white_hw = small_chw[0] > 127
        height, width = (int(white_hw.any(dim=dim).sum()) for dim in (1, 0))
        assert height == width == 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_changes() -> None:
    pixels_nchw = random_pixels(64)
    augmentation = AugmentationSpec(crop_padding=2, horizontal_flip=True, cutout=3)
    expected_nchw = augment_batch(pixels_nchw, augmentation, NORMALISE, stream(0, "batch"))
    images_nchw = augment_batch(pixels_nchw.cuda(), augmentation, NORMALISE, stream(0, "batch"))
    torch.testing.assert_close(images_nchw.cpu(), expected_nchw)
