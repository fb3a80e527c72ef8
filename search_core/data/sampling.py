"""Who is drawn: the share of each class, the two halves, and the order of training.

Legend: n images, b images of a batch.
"""

from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor


class Divisible(Protocol):
    """Anything of which a part can be taken by index."""

    def __len__(self) -> int: ...

    def take(self, indices_n: Tensor, /) -> Self:
        """The part at these indices, in their order."""
        ...


DivisibleT = TypeVar("DivisibleT", bound=Divisible)


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
    train: DivisibleT, train_portion: float, generator: torch.Generator
) -> tuple[DivisibleT, DivisibleT]:
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
        position: Batches taken of the present pass.
    """

    def __init__(self, num_images: int, batch_size: int, generator: torch.Generator) -> None:
        if not 1 <= batch_size <= num_images:
            raise ValueError(f"batches of {batch_size} out of {num_images} images")
        self.batches = num_images // batch_size
        self.position = 0
        self._num_images = num_images
        self._batch_size = batch_size
        self._generator = generator
        self._order_n = self._draw()

    def next(self) -> Tensor:
        """The indices of the next batch, [b] int64; after a pass the next one begins."""
        if self.position == self.batches:
            self.begin_pass()
        batch_b = self._batch(self.position)
        self.position += 1
        return batch_b

    def begin_pass(self) -> None:
        """Draws the order of the next pass, whatever is left of the present one."""
        self._order_n = self._draw()
        self.position = 0

    def rest_of_pass(self) -> list[Tensor]:
        """What `next` will return up to the end of the present pass, without taking it."""
        return [self._batch(position) for position in range(self.position, self.batches)]

    def state_dict(self) -> dict[str, Any]:
        """Order and position of the present pass, and the generator's state."""
        return {
            "order": self._order_n.clone(),
            "position": self.position,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the sampler was that wrote the state.

        Args:
            state: What `state_dict` returned.
        """
        self._order_n = state["order"].clone()
        self.position = state["position"]
        self._generator.set_state(state["generator"].cpu())

    def _draw(self) -> Tensor:
        return torch.randperm(self._num_images, generator=self._generator)

    def _batch(self, position: int) -> Tensor:
        start = position * self._batch_size
        return self._order_n[start : start + self._batch_size]
