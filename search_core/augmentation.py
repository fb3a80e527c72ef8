"""Random changes to training images, for whole batches on any device and for single images.

Both ways make the same changes in the same order (arXiv 1903.09900, section 4): crop, mirror,
AutoAugment, normalise, cutout. The first three see the stored pixels and pad with black; the last
one sees normalised images, in which 0 is the mean colour.

Whatever is drawn for a batch comes from a CPU generator, a few numbers for each image, so that a
GPU gets the same crops as a CPU. A single image is augmented by torchvision's transforms, which
know the global generator only; see `seeded`.

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.randomness import layers_drawn_from
from search_core.spec.augmentation import AugmentationSpec, AutoAugmentPolicy

if TYPE_CHECKING:
    from torchvision.transforms import v2

_CHANCE_TO_FLIP = 0.5

Normalise = Callable[[Tensor], Tensor]


def augment_batch(
    pixels_nchw: Tensor,
    augmentation: AugmentationSpec,
    normalise: Normalise,
    generator: torch.Generator,
) -> Tensor:
    """Augments and normalises a batch.

    Args:
        pixels_nchw: Stored pixels, uint8, on any device.
        augmentation: What to change; `resized_crop` is none of a batch's.
        normalise: From stored pixels to what a network sees.
        generator: A CPU generator; it moves on by what is drawn.

    Returns:
        float32 images of the same shape.
    """
    assert not augmentation.resized_crop, "the spec refuses it for images in memory"
    if augmentation.auto_augment is None:
        numbers_5n = draw(augmentation, pixels_nchw.shape, generator).to(pixels_nchw.device)
        return augment_as_drawn(pixels_nchw, augmentation, normalise, numbers_5n)
    # What a policy draws depends on what it has drawn before, so that nothing is drawn ahead of it.
    if augmentation.crop_padding:
        pixels_nchw = random_crop(pixels_nchw, augmentation.crop_padding, generator)
    if augmentation.horizontal_flip:
        pixels_nchw = random_flip(pixels_nchw, generator)
    images_nchw = normalise(auto_augment(pixels_nchw, augmentation.auto_augment, generator))
    if augmentation.cutout:
        images_nchw = cutout(images_nchw, augmentation.cutout, generator)
    return images_nchw


def draw(
    augmentation: AugmentationSpec, shape_nchw: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Draws all that `augment_batch` would draw for a batch, without its images.

    Args:
        augmentation: What to change; it has no policy, which draws as it goes.
        shape_nchw: The batch's.
        generator: A CPU generator; it moves on by what is drawn.

    Returns:
        For each image the row and the column of its crop, whether it is mirrored, and the row and
        the column of its cutout: [5, n] int64 on the CPU, with zeros for what is not drawn.
    """
    assert augmentation.auto_augment is None
    num_images, _, height, width = shape_nchw
    numbers_5n = torch.zeros((5, num_images), dtype=torch.int64)
    if augmentation.crop_padding:
        numbers_5n[:2] = _drawn_offsets(num_images, augmentation.crop_padding, generator)
    if augmentation.horizontal_flip:
        numbers_5n[2] = _drawn_flips(num_images, generator)
    if augmentation.cutout:
        numbers_5n[3:] = _drawn_pixels(num_images, height, width, generator)
    return numbers_5n


def augment_as_drawn(
    pixels_nchw: Tensor,
    augmentation: AugmentationSpec,
    normalise: Normalise,
    numbers_5n: Tensor,
) -> Tensor:
    """Augments and normalises a batch by numbers that are there.

    Args:
        pixels_nchw: Stored pixels, uint8, on any device.
        augmentation: What `draw` was called with.
        normalise: From stored pixels to what a network sees.
        numbers_5n: What it returned, on the device of the pixels.

    Returns:
        float32 images of the same shape.
    """
    if augmentation.crop_padding:
        pixels_nchw = _cropped(pixels_nchw, augmentation.crop_padding, numbers_5n[:2])
    if augmentation.horizontal_flip:
        pixels_nchw = _mirrored(pixels_nchw, numbers_5n[2] > 0)
    images_nchw = normalise(pixels_nchw)
    if augmentation.cutout:
        images_nchw = _cut(images_nchw, augmentation.cutout, numbers_5n[3:])
    return images_nchw


def random_crop(pixels_nchw: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pads every image with zeros and cuts its own size out of each at a place of its own.

    Args:
        pixels_nchw: The images.
        padding: Pixels on every side.
        generator: A CPU generator.
    """
    offsets_2n = _drawn_offsets(len(pixels_nchw), padding, generator)
    return _cropped(pixels_nchw, padding, offsets_2n.to(pixels_nchw.device))


def _drawn_offsets(num_images: int, padding: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2 * padding + 1, (2, num_images), generator=generator)


def _cropped(pixels_nchw: Tensor, padding: int, offsets_2n: Tensor) -> Tensor:
    num_images, num_channels, height, width = pixels_nchw.shape
    device = pixels_nchw.device
    padded_nchw = functional.pad(pixels_nchw, (padding, padding, padding, padding))
    rows_nh = offsets_2n[0, :, None] + torch.arange(height, device=device)
    columns_nw = offsets_2n[1, :, None] + torch.arange(width, device=device)
    return padded_nchw[
        torch.arange(num_images, device=device)[:, None, None, None],
        torch.arange(num_channels, device=device)[None, :, None, None],
        rows_nh[:, None, :, None],
        columns_nw[:, None, None, :],
    ]


def random_flip(pixels_nchw: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image left and right with a chance of one half.

    Args:
        pixels_nchw: The images.
        generator: A CPU generator.
    """
    flipped_n = _drawn_flips(len(pixels_nchw), generator)
    return _mirrored(pixels_nchw, flipped_n.to(pixels_nchw.device))


def _drawn_flips(num_images: int, generator: torch.Generator) -> Tensor:
    return torch.rand(num_images, generator=generator) < _CHANCE_TO_FLIP


def _mirrored(pixels_nchw: Tensor, flipped_n: Tensor) -> Tensor:
    return torch.where(flipped_n[:, None, None, None], pixels_nchw.flip(-1), pixels_nchw)


def auto_augment(
    pixels_nchw: Tensor, policy: AutoAugmentPolicy, generator: torch.Generator
) -> Tensor:
    """Applies a policy to each image on its own, with torchvision's transform.

    Args:
        pixels_nchw: The images, uint8, of 1 or 3 channels.
        policy: The data set that the policy was learned on.
        generator: A CPU generator.
    """
    transform = _policy(policy)
    # The loan serves torchvision's transforms as it serves PyTorch's layers: both draw from the
    # global generator only.
    with layers_drawn_from(generator):
        return torch.stack([transform(pixels_chw) for pixels_chw in pixels_nchw])


def cutout(images_nchw: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Sets a square of each image to 0, around a pixel drawn evenly, cut off at the borders.

    Args:
        images_nchw: Normalised images.
        length: Side of the square in pixels.
        generator: A CPU generator.
    """
    num_images, _, height, width = images_nchw.shape
    centres_2n = _drawn_pixels(num_images, height, width, generator)
    return _cut(images_nchw, length, centres_2n.to(images_nchw.device))


def _drawn_pixels(num_images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    rows_n = torch.randint(height, (num_images,), generator=generator)
    return torch.stack([rows_n, torch.randint(width, (num_images,), generator=generator)])


def _cut(images_nchw: Tensor, length: int, centres_2n: Tensor) -> Tensor:
    height, width = images_nchw.shape[2:]
    hit_nh = _covered(centres_2n[0], length, height)
    hit_nw = _covered(centres_2n[1], length, width)
    return images_nchw.masked_fill((hit_nh[:, :, None] & hit_nw[:, None, :]).unsqueeze(1), 0)


def single_image(
    augmentation: AugmentationSpec, image_size: int, normalise: Normalise
) -> Callable[[Tensor], Tensor]:
    """The same for an image that has just been read, of any size.

    Args:
        augmentation: What to change.
        image_size: Height and width that come out.
        normalise: From pixels to what a network sees.

    Returns:
        From pixels [c, h, w], uint8, to float32 [c, image_size, image_size]. It draws from the
        global generator: call it within `seeded`.
    """
    from torchvision.transforms import v2  # slow to import: PyTorch's compiler comes with it

    steps: list[Callable[..., Any]] = []
    if augmentation.resized_crop:
        steps.append(v2.RandomResizedCrop(image_size, antialias=True))
    else:
        steps.append(centred(image_size))
    if augmentation.crop_padding:
        steps.append(v2.RandomCrop(image_size, padding=augmentation.crop_padding))
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(_CHANCE_TO_FLIP))
    if augmentation.auto_augment is not None:
        steps.append(_policy(augmentation.auto_augment))
    steps.append(normalise)
    if augmentation.cutout:
        steps.append(Cutout(augmentation.cutout))
    return _Steps(steps)


def centred(image_size: int) -> Callable[[Tensor], Tensor]:
    """Scales an image by its shorter side, and cuts a square out of its middle.

    As for ImageNet's 224 pixels out of 256, the square is 7/8 of the scaled shorter side.

    Args:
        image_size: Side of the square in pixels.

    Returns:
        From pixels [c, h, w], uint8, to pixels [c, image_size, image_size].
    """
    from torchvision.transforms import v2  # slow to import

    shorter_side = round(image_size * 256 / 224)
    return _Steps([v2.Resize(shorter_side, antialias=True), v2.CenterCrop(image_size)])


class Cutout(nn.Module):
    """`cutout` of a single image, from the global generator.

    Args:
        length: Side of the square in pixels.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, image_chw: Tensor) -> Tensor:
        """The image with a square of it set to 0."""
        return cutout(image_chw.unsqueeze(0), self.length, torch.default_generator).squeeze(0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lets what is inside draw from the global CPU generator as if freshly seeded.

    The generator is put back afterwards, and those of GPUs are not touched.

    Args:
        seed: From 0 to below 2**63.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too.
        torch.default_generator.manual_seed(seed)
        yield


class _Steps:
    """Transforms one after the other; can be sent to another process."""

    def __init__(self, steps: list[Callable[..., Any]]) -> None:
        self._steps = steps

    def __call__(self, image_chw: Tensor) -> Tensor:
        for step in self._steps:
            image_chw = step(image_chw)
        return image_chw


def _policy(policy: AutoAugmentPolicy) -> "v2.AutoAugment":
    from torchvision.transforms import v2  # slow to import

    return v2.AutoAugment(v2.AutoAugmentPolicy(policy))


def _covered(centres_n: Tensor, length: int, size: int) -> Tensor:
    """Which of a side's pixels lie within `length` pixels around each centre, [n, size]."""
    first_n1 = centres_n[:, None] - length // 2
    pixels = torch.arange(size, device=centres_n.device)
    return (pixels >= first_n1) & (pixels < first_n1 + length)
