"""Images made from a seed, with classes that a network can learn and a linear model cannot.

A class is a random tile with mean 0, repeated over the whole image. An image shows it shifted by a
random phase, with a random sign and a random contrast, under noise. Because either sign is as
likely, the pixels of every class have the same mean: what tells the classes apart is only how
neighbouring pixels go together, which convolutions see at any phase.

Legend: n images, c channels, h height, w width, k classes, t side of a tile.
"""

from pathlib import Path

import torch
from torch import Tensor

from search_core.data.images import Dataset, Normalisation
from search_core.data.loading import register
from search_core.data.stored import StoredImages
from search_core.randomness import stream
from search_core.spec.datasets import SyntheticDataset

_TILE_SIDE = 4
_LOWEST_CONTRAST = 0.7
_CHUNK = 4096


@register("synthetic")
def make_synthetic(dataset: SyntheticDataset, folder: Path) -> Dataset:
    """Makes both splits; they share the tiles and nothing else."""
    channels, height, width = dataset.image_shape
    shape = (
        dataset.num_classes,
        channels,
        min(_TILE_SIDE, height),
        min(_TILE_SIDE, width),
    )
    tiles_kctt = torch.randn(shape, generator=stream(dataset.seed, "synthetic tiles"))
    tiles_kctt -= tiles_kctt.mean(dim=(2, 3), keepdim=True)
    tiles_kctt /= tiles_kctt.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return Dataset(
        train=_split(dataset, tiles_kctt, dataset.num_train, "train"),
        test=_split(dataset, tiles_kctt, dataset.num_test, "test"),
    )


def _split(
    dataset: SyntheticDataset, tiles_kctt: Tensor, num_images: int, purpose: str
) -> StoredImages:
    generator = stream(dataset.seed, f"synthetic {purpose} split")
    order_n = torch.randperm(num_images, generator=generator)
    labels_n = order_n % dataset.num_classes
    pixels = [
        _draw(dataset, tiles_kctt[labels_n[start : start + _CHUNK]], generator)
        for start in range(0, num_images, _CHUNK)
    ]
    return StoredImages(torch.cat(pixels), labels_n, Normalisation.of(dataset.facts))


def _draw(dataset: SyntheticDataset, tiles_nctt: Tensor, generator: torch.Generator) -> Tensor:
    """One image for each tile, as pixels."""
    num_images, channels, tile_height, tile_width = tiles_nctt.shape
    _, height, width = dataset.image_shape
    down_n = torch.randint(tile_height, (num_images,), generator=generator)
    right_n = torch.randint(tile_width, (num_images,), generator=generator)
    rows_nh = (down_n[:, None] + torch.arange(height)) % tile_height
    columns_nw = (right_n[:, None] + torch.arange(width)) % tile_width
    textures_nchw = tiles_nctt[
        torch.arange(num_images)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows_nh[:, None, :, None],
        columns_nw[:, None, None, :],
    ]
    sign_n = 2.0 * torch.randint(2, (num_images,), generator=generator) - 1
    contrast_n = torch.empty(num_images).uniform_(_LOWEST_CONTRAST, 1, generator=generator)
    noise_nchw = dataset.noise * torch.randn(textures_nchw.shape, generator=generator)
    images_nchw = (sign_n * contrast_n)[:, None, None, None] * textures_nchw + noise_nchw
    # Mean square of a contrast drawn evenly from [a, 1] is (1 + a + a^2) / 3.
    texture_variance = (1 + _LOWEST_CONTRAST + _LOWEST_CONTRAST**2) / 3
    images_nchw /= (texture_variance + dataset.noise**2) ** 0.5
    mean, std = dataset.facts.mean[0], dataset.facts.std[0]
    return (255 * (mean + std * images_nchw)).round().clamp(0, 255).to(torch.uint8)
