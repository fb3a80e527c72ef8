"""Images kept whole on the training device, one byte for each value, and augmented in batches.

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_core.augmentation import augment_batch
from search_core.data.images import Batches, Images, LabelledImages, Normalisation
from search_core.data.sampling import BatchSampler
from search_core.spec.augmentation import AugmentationSpec


@dataclass(frozen=True)
class StoredImages(Images):
    """Images in memory.

    Attributes:
        pixels_nchw: Pixels from 0 to the normalisation's brightest, uint8.
        labels_n: Classes, int64.
        normalisation: From pixels to what a network sees.
    """

    pixels_nchw: Tensor
    labels_n: Tensor
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.labels_n)

    def take(self, indices_n: Tensor) -> "StoredImages":
        """The part with these images, in this order."""
        indices_n = indices_n.to(self.labels_n.device)
        return StoredImages(
            self.pixels_nchw[indices_n], self.labels_n[indices_n], self.normalisation
        )

    def to(self, device: torch.device | str) -> "StoredImages":
        """The same images on another device."""
        return StoredImages(
            self.pixels_nchw.to(device), self.labels_n.to(device), self.normalisation
        )

    def in_order(self, batch_size: int) -> Iterator[LabelledImages]:
        """All images in their order and without augmentation, for measuring."""
        for start in range(0, len(self), batch_size):
            chosen = slice(start, start + batch_size)
            pixels_nchw = self.pixels_nchw[chosen]
            yield LabelledImages(self.normalisation(pixels_nchw), self.labels_n[chosen])

    def batches(
        self,
        batch_size: int,
        augmentation: AugmentationSpec,
        *,
        order_generator: torch.Generator,
        augmentation_generator: torch.Generator,
    ) -> "StoredBatches":
        """Training batches; see `Images.batches`."""
        sampler = BatchSampler(len(self), batch_size, order_generator)
        return StoredBatches(self, sampler, augmentation, augmentation_generator)


class StoredBatches(Batches):
    """Batches of images in memory.

    Args:
        images: The images.
        sampler: The order.
        augmentation: How to vary them.
        generator: A CPU generator for the augmentation.
    """

    def __init__(
        self,
        images: StoredImages,
        sampler: BatchSampler,
        augmentation: AugmentationSpec,
        generator: torch.Generator,
    ) -> None:
        self.batches = sampler.batches
        self._images = images
        self._sampler = sampler
        self._augmentation = augmentation
        self._generator = generator

    def next(self) -> LabelledImages:
        """The next batch, on the device of the images."""
        batch = self._images.take(self._sampler.next())
        images_nchw = augment_batch(
            batch.pixels_nchw, self._augmentation, batch.normalisation, self._generator
        )
        return LabelledImages(images_nchw, batch.labels_n)

    def state_dict(self) -> dict[str, Any]:
        """The order's state, and the augmentation generator's."""
        return {
            "sampler": self._sampler.state_dict(),
            "augmentation": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the batches were that wrote the state."""
        self._sampler.load_state_dict(state["sampler"])
        self._generator.set_state(state["augmentation"].cpu())
