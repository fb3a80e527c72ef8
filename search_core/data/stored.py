"""Images kept whole on the training device, one byte for each value, and augmented in batches.

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_core.augmentation import augment_as_drawn, augment_batch, draw
from search_core.data.images import Batches, Images, LabelledImages, Normalisation
from search_core.data.sampling import BatchSampler
from search_core.spec.augmentation import AugmentationSpec

_AHEAD = 64
"""Batches whose numbers are drawn together."""


@dataclass(frozen=True)
class _Drawn:
    """The numbers of a batch, on its device.

    Attributes:
        indices_n: Its images.
        numbers_5n: What `draw` drew; None where that is drawn when the batch is made.
        state: Of the generator after the batch.
    """

    indices_n: Tensor
    numbers_5n: Tensor | None
    state: Tensor


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

    The order, and what the augmentation draws, are drawn on the CPU for many batches at once and
    copied to the images' device together, so that a GPU is not kept waiting by each of them. The
    numbers are those that every batch would draw for itself, and so is the state of any moment.

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
        self._coming: Iterator[_Drawn] = iter(())
        self._state = generator.get_state()

    def next(self) -> LabelledImages:
        """The next batch, on the device of the images."""
        drawn = next(self._coming, None)
        if drawn is None:
            self._coming = iter(self._draw_ahead())
            drawn = next(self._coming)
        self._sampler.next()
        batch = self._images.take(drawn.indices_n)
        if drawn.numbers_5n is None:
            images_nchw = augment_batch(
                batch.pixels_nchw, self._augmentation, batch.normalisation, self._generator
            )
            self._state = self._generator.get_state()
        else:
            images_nchw = augment_as_drawn(
                batch.pixels_nchw, self._augmentation, batch.normalisation, drawn.numbers_5n
            )
            self._state = drawn.state
        return LabelledImages(images_nchw, batch.labels_n)

    def state_dict(self) -> dict[str, Any]:
        """The order's state, and the augmentation generator's."""
        return {
            "sampler": self._sampler.state_dict(),
            "augmentation": self._state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the batches were that wrote the state."""
        self._sampler.load_state_dict(state["sampler"])
        self._state = state["augmentation"].cpu().clone()
        self._generator.set_state(self._state)
        self._coming = iter(())

    def _draw_ahead(self) -> list["_Drawn"]:
        """Batches up to the end of the pass, if they are not too many."""
        if self._sampler.position == self._sampler.batches:
            self._sampler.begin_pass()
        indices = self._sampler.rest_of_pass()[:_AHEAD]
        if self._augmentation.auto_augment is not None:
            moved = self._moved(torch.stack(indices))
            return [_Drawn(indices_n, None, self._state) for indices_n in moved]
        shape = self._images.pixels_nchw.shape[1:]
        numbers, states = [], []
        for indices_n in indices:
            drawn_5n = draw(self._augmentation, (len(indices_n), *shape), self._generator)
            numbers.append(torch.cat([indices_n[None], drawn_5n]))
            states.append(self._generator.get_state())
        moved = self._moved(torch.stack(numbers))
        return [
            _Drawn(each_6n[0], each_6n[1:], state)
            for each_6n, state in zip(moved, states, strict=True)
        ]

    def _moved(self, numbers: Tensor) -> Tensor:
        """The numbers on the images' device, without waiting for it."""
        device = self._images.labels_n.device
        if device.type == "cuda":
            numbers = numbers.pin_memory()
        return numbers.to(device, non_blocking=True)
