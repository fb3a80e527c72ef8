"""Images read from the disk batch by batch, for data sets that do not fit in memory.

The random numbers of an image come from a seed of its own, which belongs to its place in the pass:
how many processes read, and how far ahead, changes nothing.

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader

from search_core.augmentation import centred, seeded, single_image
from search_core.data.images import Batches, Images, LabelledImages, Normalisation
from search_core.data.sampling import BatchSampler
from search_core.spec.augmentation import AugmentationSpec

_SEED_LIMIT = 2**63 - 1

Source = Sequence[tuple[Image, int]]
"""Photographs and their classes by index; reading one opens its file."""


@dataclass(frozen=True)
class StreamedImages(Images):
    """Images on the disk.

    Attributes:
        source: All photographs of the folder.
        indices_n: Those that these images are, int64, on the CPU.
        image_size: Height and width that every image is brought to.
        normalisation: From pixels to what a network sees.
        num_workers: Processes that read; 0 reads in the training process.
        device: Where batches go.
    """

    source: Source
    indices_n: Tensor
    image_size: int
    normalisation: Normalisation
    num_workers: int = 0
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.indices_n)

    def take(self, indices_n: Tensor) -> "StreamedImages":
        """The part with these images, in this order."""
        return replace(self, indices_n=self.indices_n[indices_n.cpu()])

    def to(self, device: torch.device | str) -> "StreamedImages":
        """The same images, for training on another device."""
        return replace(self, device=device)

    def in_order(self, batch_size: int) -> Iterator[LabelledImages]:
        """All images in their order and without augmentation, for measuring."""
        transform = _Measured(centred(self.image_size), self.normalisation)
        everything_n = torch.arange(len(self))
        positions = [
            everything_n[start : start + batch_size] for start in range(0, len(self), batch_size)
        ]
        no_seeds = [torch.zeros_like(batch) for batch in positions]
        yield from self.read(positions, no_seeds, transform)

    def batches(
        self,
        batch_size: int,
        augmentation: AugmentationSpec,
        *,
        order_generator: torch.Generator,
        augmentation_generator: torch.Generator,
    ) -> "StreamedBatches":
        """Training batches; see `Images.batches`."""
        sampler = BatchSampler(len(self), batch_size, order_generator)
        transform = single_image(augmentation, self.image_size, self.normalisation)
        return StreamedBatches(self, sampler, batch_size, transform, augmentation_generator)

    def read(
        self,
        positions: Sequence[Tensor],
        seeds: Sequence[Tensor],
        transform: Callable[[Tensor], Tensor],
    ) -> Iterator[LabelledImages]:
        """Reads batches, ahead of need if there are workers.

        Args:
            positions: Of each batch the positions in these images, int64.
            seeds: Of each batch the images' seeds, int64.
            transform: From the photograph's pixels [c, h, w], uint8, to an image.
        """
        plan = _Plan([self.indices_n[batch] for batch in positions], seeds)
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            _SeededSource(self.source, transform),  # type: ignore[arg-type]
            batch_sampler=plan,
            num_workers=self.num_workers,
            pin_memory=torch.device(self.device).type == "cuda",
            # Without one the loader would draw from the global generator.
            generator=torch.Generator(),
        )
        for images_nchw, labels_n in loader:
            # From pinned memory, so that a GPU need not be waited for.
            yield LabelledImages(
                images_nchw.to(self.device, non_blocking=True),
                labels_n.to(self.device, non_blocking=True),
            )


class StreamedBatches(Batches):
    """Batches of images on the disk.

    Args:
        images: The images.
        sampler: The order.
        batch_size: Images of a batch.
        transform: Reads the global generator; each image sees it freshly seeded.
        generator: A CPU generator for the images' seeds.
    """

    def __init__(
        self,
        images: StreamedImages,
        sampler: BatchSampler,
        batch_size: int,
        transform: Callable[[Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        self.batches = sampler.batches
        self._images = images
        self._sampler = sampler
        self._batch_size = batch_size
        self._transform = transform
        self._generator = generator
        self._pass_seed = self._draw_seed()
        self._reading: Iterator[LabelledImages] | None = None

    def next(self) -> LabelledImages:
        """The next batch, on the device of the images."""
        if self._sampler.position == self.batches:
            self._sampler.begin_pass()
            self._pass_seed = self._draw_seed()
        if self._reading is None:
            self._reading = self._read_rest_of_pass()
        batch = next(self._reading)
        # What has been read ahead does not count: the state is that of the batch in hand.
        self._sampler.next()
        if self._sampler.position == self.batches:
            self._reading = None  # The processes that read end, whoever trains next.
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The order's state, the seed of the present pass, and the seed generator's state."""
        return {
            "sampler": self._sampler.state_dict(),
            "pass_seed": self._pass_seed,
            "augmentation": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the batches were that wrote the state."""
        self._sampler.load_state_dict(state["sampler"])
        self._pass_seed = state["pass_seed"]
        self._generator.set_state(state["augmentation"].cpu())
        self._reading = None

    def _read_rest_of_pass(self) -> Iterator[LabelledImages]:
        generator = torch.Generator().manual_seed(self._pass_seed)
        shape = (self.batches, self._batch_size)
        seeds_of_pass = torch.randint(_SEED_LIMIT, shape, generator=generator)
        return self._images.read(
            self._sampler.rest_of_pass(),
            list(seeds_of_pass[self._sampler.position :]),
            self._transform,
        )

    def _draw_seed(self) -> int:
        return int(torch.randint(_SEED_LIMIT, (), generator=self._generator))


class _Plan:
    """Which images the batches to come have, and with what seeds."""

    def __init__(self, indices: Sequence[Tensor], seeds: Sequence[Tensor]) -> None:
        self._indices = indices
        self._seeds = seeds

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # One batch at a time: a pass over ImageNet as Python numbers would fill hundreds of MB.
        for indices_b, seeds_b in zip(self._indices, self._seeds, strict=True):
            yield list(zip(indices_b.tolist(), seeds_b.tolist(), strict=True))


class _SeededSource:
    """What the loader's processes read: an image by its index, varied by its seed."""

    def __init__(self, source: Source, transform: Callable[[Tensor], Tensor]) -> None:
        self._source = source
        self._transform = transform

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, int]:
        from torchvision.transforms.v2.functional import pil_to_tensor  # slow to import

        index, seed = place
        photograph, label = self._source[index]
        with seeded(seed):
            return self._transform(pil_to_tensor(photograph)), label


class _Measured:
    """Scaling and normalisation only; can be sent to another process."""

    def __init__(self, scale: Callable[[Tensor], Tensor], normalisation: Normalisation) -> None:
        self._scale = scale
        self._normalisation = normalisation

    def __call__(self, pixels_chw: Tensor) -> Tensor:
        return self._normalisation(self._scale(pixels_chw))
