"""Data sets by name, their splits, and batches that can be resumed.

A data set lies in memory as tensors on the training device. The test split is fixed: it depends on
no seed of a user's, and a search never receives it.

Legend: n images, c channels, h height, w width, b images of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_core.errors import UnknownNameError
from search_core.randomness import stream
from search_core.spec.datasets import FACTS, DatasetName

_SPLIT_SEED = 0
_DIGITS_BRIGHTEST = 16.0


@dataclass(frozen=True)
class LabelledImages:
    """Images and their classes: a split of a data set, half of one, or a batch.

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


@dataclass(frozen=True)
class Dataset:
    """A data set, normalised by the constants of its training split.

    Attributes:
        train: What a search divides into its two halves.
        test: What no search sees.
    """

    train: LabelledImages
    test: LabelledImages


REGISTRY: dict[DatasetName, Callable[[], Dataset]] = {}
"""The function that loads each data set that a spec can name."""


def register(name: DatasetName) -> Callable[[Callable[[], Dataset]], Callable[[], Dataset]]:
    """Registers a loader.

    Args:
        name: The data set's name in the spec.

    Returns:
        A decorator that registers the loader and returns it as it is.
    """

    def add(loader: Callable[[], Dataset]) -> Callable[[], Dataset]:
        REGISTRY[name] = loader
        return loader

    return add


def load(name: DatasetName) -> Dataset:
    """Loads a data set into main memory.

    Args:
        name: Its name in the spec.

    Returns:
        The data set, always with the same images in the same order.

    Raises:
        UnknownNameError: There is no data set of that name.
        DataNotFoundError: Its files are not there.
    """
    if name not in REGISTRY:
        raise UnknownNameError(f"no data set {name!r}; known are: {', '.join(REGISTRY)}")
    return REGISTRY[name]()


@register("digits")
def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    images_nchw = torch.from_numpy(bunch.images).float().unsqueeze(1) / _DIGITS_BRIGHTEST
    labels_n = torch.from_numpy(bunch.target).long()
    generator = stream(_SPLIT_SEED, "digits test split")
    test_n = stratified(labels_n, FACTS["digits"].num_test, generator)
    is_test_n = torch.zeros(len(labels_n), dtype=torch.bool)
    is_test_n[test_n] = True
    train_nchw = images_nchw[~is_test_n]
    # One constant for the image, not one for each pixel: the border pixels hardly vary.
    images_nchw = (images_nchw - train_nchw.mean()) / train_nchw.std()
    return Dataset(
        train=LabelledImages(images_nchw[~is_test_n], labels_n[~is_test_n]),
        test=LabelledImages(images_nchw[is_test_n], labels_n[is_test_n]),
    )


def stratified(labels_n: Tensor, num_chosen: int, generator: torch.Generator) -> Tensor:
    """Draws images so that every class has its share, up to less than one image.

    Args:
        labels_n: The classes of all images, int64.
        num_chosen: How many to draw.
        generator: A CPU generator.

    Returns:
        Indices of the drawn images, ascending, [num_chosen].
    """
    counts = torch.bincount(labels_n)
    exact = counts.double() * num_chosen / len(labels_n)
    quotas = exact.floor().long()
    # The images that rounding down left over go to the classes that lost most by it.
    left_over = num_chosen - int(quotas.sum())
    quotas[(exact - quotas).argsort(descending=True, stable=True)[:left_over]] += 1
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        members = (labels_n == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(chosen).sort().values


def halves(
    train: LabelledImages, train_portion: float, generator: torch.Generator
) -> tuple[LabelledImages, LabelledImages]:
    """Divides a training split at random into the weights' half and the alphas' half.

    Args:
        train: The training split.
        train_portion: Share of the weights' half; it is rounded down to whole images.
        generator: A CPU generator.

    Returns:
        The half that trains the weights, and the one that trains the alphas.
    """
    order_n = torch.randperm(len(train), generator=generator)
    num_weight_images = int(len(train) * train_portion)
    return train.take(order_n[:num_weight_images]), train.take(order_n[num_weight_images:])


class BatchSampler:
    """Endless batches of indices: passes in random order, each in whole batches.

    The images that do not fill a last batch are left out of that pass; a pass draws its order
    anew, so that it is others every time.

    Args:
        num_images: Images to draw from.
        batch_size: Images of a batch, at most `num_images`.
        generator: A CPU generator; the sampler owns it from now on.

    Attributes:
        batches: Batches of one pass.
    """

    def __init__(self, num_images: int, batch_size: int, generator: torch.Generator) -> None:
        if not 1 <= batch_size <= num_images:
            raise ValueError(f"batches of {batch_size} out of {num_images} images")
        self.batches = num_images // batch_size
        self._num_images = num_images
        self._batch_size = batch_size
        self._generator = generator
        self._position = 0
        self._order_n = self._draw()

    def next(self) -> Tensor:
        """The indices of the next batch, [b] int64; after a pass the next one begins."""
        if self._position == self.batches:
            self._order_n = self._draw()
            self._position = 0
        start = self._position * self._batch_size
        self._position += 1
        return self._order_n[start : start + self._batch_size]

    def state_dict(self) -> dict[str, Any]:
        """Order and position of the present pass, and the generator's state."""
        return {
            "order": self._order_n.clone(),
            "position": self._position,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the sampler was that wrote the state.

        Args:
            state: What `state_dict` returned.
        """
        self._order_n = state["order"].clone()
        self._position = state["position"]
        self._generator.set_state(state["generator"].cpu())

    def _draw(self) -> Tensor:
        return torch.randperm(self._num_images, generator=self._generator)
