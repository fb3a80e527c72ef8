"""Photographs of any size in folders, one folder for each class: ImageNet and a user's own.

Legend: n images, c channels, h height, w width.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from search_core.augmentation import centred
from search_core.data.images import Dataset, Images, Normalisation
from search_core.data.loading import register
from search_core.data.stored import StoredImages
from search_core.data.streamed import StreamedImages
from search_core.spec.datasets import ImageFolderDataset, ImagenetDataset, ScaledDataset

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder


@register("imagenet")
def load_imagenet(dataset: ImagenetDataset, folder: Path) -> Dataset:
    """Loads ImageNet; torchvision unpacks the archives where the folders are not there yet."""
    from torchvision import datasets  # slow to import: PyTorch's compiler comes with it

    return _dataset(
        dataset,
        datasets.ImageNet(folder, split="train"),
        datasets.ImageNet(folder, split="val"),
    )


@register("image_folder")
def load_image_folder(dataset: ImageFolderDataset, folder: Path) -> Dataset:
    """Loads `train` and `test`.

    Raises:
        ValueError: The classes are not as many as the spec says, or not the same in both.
    """
    from torchvision import datasets  # slow to import

    train, test = (datasets.ImageFolder(folder / split) for split in ("train", "test"))
    if len(train.classes) != dataset.num_classes:
        raise ValueError(
            f"{folder / 'train'} has {len(train.classes)} folders, but dataset.num_classes is "
            f"{dataset.num_classes}"
        )
    if train.classes != test.classes:
        different = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"train and test must have the same folders, one for each class; {different[0]!r} is "
            "in one of them only"
        )
    return _dataset(dataset, train, test)


def _dataset(dataset: ScaledDataset, train: "ImageFolder", test: "ImageFolder") -> Dataset:
    bring = _streamed if dataset.streamed else _stored
    return Dataset(train=bring(dataset, train), test=bring(dataset, test))


def _streamed(dataset: ScaledDataset, split: "ImageFolder") -> Images:
    return StreamedImages(
        split,
        torch.arange(len(split)),
        dataset.image_size,
        Normalisation.of(dataset.facts),
    )


def _stored(dataset: ScaledDataset, split: "ImageFolder") -> Images:
    from torchvision.transforms.v2.functional import pil_to_tensor  # slow to import

    scale = centred(dataset.image_size)
    size = dataset.image_size
    pixels_nchw = torch.empty((len(split), 3, size, size), dtype=torch.uint8)
    for index in range(len(split)):
        photograph, _ = split[index]
        pixels_nchw[index] = scale(pil_to_tensor(photograph))
    return StoredImages(pixels_nchw, torch.tensor(split.targets), Normalisation.of(dataset.facts))
