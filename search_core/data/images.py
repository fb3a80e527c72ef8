"""What a split of a data set is to those who train on it, wherever its pixels are.

Legend: n images, c channels, h height, w width, b images of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from search_core.spec.augmentation import AugmentationSpec
from search_core.spec.dataset_facts import DatasetFacts


@dataclass(frozen=True)
class LabelledImages:
    """Images ready for a network, and their classes: usually a batch.

    Attributes:
        images_nchw: The images, float32, normalised.
        labels_n: Their classes, int64.
    """

    images_nchw: Tensor
    labels_n: Tensor

    def __len__(self) -> int:
        return len(self.labels_n)

    def take(self, indices_b: Tensor) -> "LabelledImages":
        """The images at these indices, in their order.

        Args:
            indices_b: Indices, int64, on any device.
        """
        indices_b = indices_b.to(self.labels_n.device)
        return LabelledImages(self.images_nchw[indices_b], self.labels_n[indices_b])

    def to(self, device: torch.device | str) -> "LabelledImages":
        """The same images on another device."""
        return LabelledImages(self.images_nchw.to(device), self.labels_n.to(device))

    def in_order(self, batch_size: int) -> Iterator["LabelledImages"]:
        """All images in batches; the last one may be smaller."""
        for start in range(0, len(self), batch_size):
            chosen = slice(start, start + batch_size)
            yield LabelledImages(self.images_nchw[chosen], self.labels_n[chosen])


@dataclass(frozen=True)
class Normalisation:
    """From stored pixels to what a network sees: mean 0 and deviation 1 over the training split.

    Attributes:
        mean: By channel, on a scale from 0 to 1.
        std: By channel, likewise.
        brightest: The stored value that stands for 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    brightest: int

    @classmethod
    def of(cls, facts: DatasetFacts) -> Self:
        """The normalisation of a data set."""
        return cls(facts.mean, facts.std, facts.brightest)

    def __call__(self, pixels_chw: Tensor) -> Tensor:
        """Normalises one image [c, h, w] or a batch [n, c, h, w] of uint8 to float32."""
        mean_c11 = _by_channel(self.mean, pixels_chw.device)
        std_c11 = _by_channel(self.std, pixels_chw.device)
        return (pixels_chw.float() / self.brightest - mean_c11) / std_c11


@cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """On the device, [c, 1, 1]; brought there once, because a GPU is kept waiting by it."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


class Batches(ABC):
    """Endless training batches, augmented: passes in random order, each in whole batches.

    The images that do not fill a last batch are left out of that pass, and every pass draws its
    order anew. Nothing depends on the global random state.

    Attributes:
        batches: Batches of one pass.
    """

    batches: int

    @abstractmethod
    def next(self) -> LabelledImages:
        """The next batch, on the device of its images; after a pass the next one begins."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the following batches depend on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the batches were that wrote the state.

        Args:
            state: What `state_dict` returned.
        """


class Images(ABC):
    """A split of a data set, or a part of one."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images."""

    @abstractmethod
    def take(self, indices_n: Tensor) -> Self:
        """The part with these images, in this order.

        Args:
            indices_n: Indices, int64, on any device.
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same images, for training on this device."""

    @abstractmethod
    def in_order(self, batch_size: int) -> Iterator[LabelledImages]:
        """All images in their order and without augmentation, for measuring.

        Args:
            batch_size: Images of a batch; the last one may be smaller.
        """

    @abstractmethod
    def batches(
        self,
        batch_size: int,
        augmentation: AugmentationSpec,
        *,
        order_generator: torch.Generator,
        augmentation_generator: torch.Generator,
    ) -> Batches:
        """Training batches.

        Args:
            batch_size: Images of a batch, at most as many as there are.
            augmentation: How to vary the images.
            order_generator: A CPU generator for the order; the batches own it from now on.
            augmentation_generator: A CPU generator for the augmentation, likewise.

        Raises:
            ValueError: There are fewer images than a batch has.
        """


@dataclass(frozen=True)
class Dataset:
    """A data set in its two splits, which share no image.

    Attributes:
        train: What a search divides into its two halves.
        test: What no search sees.
    """

    train: Images
    test: Images
