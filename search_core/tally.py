"""What the steps of an epoch measure, kept on their device until somebody has to know.

To ask a GPU for a number is to wait until it has done all that it was told before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

WATCHED: Final = (
    "the validation loss",
    "the norm of the alphas' gradient",
    "the training loss",
    "the norm of the weights' gradient",
)
"""What has to be finite in every step, in the order in which a step computes it."""


@dataclass(frozen=True)
class Fault:
    """The first value that was not finite.

    Attributes:
        batch: The batch of the epoch, from 1.
        what: The value in words, with itself.
    """

    batch: int
    what: str


@dataclass(frozen=True)
class Totals:
    """An epoch so far.

    Attributes:
        loss_sum: Of the mean training losses of its batches.
        num_correct: Training images classified right.
        fault: Where it went wrong, if it did.
    """

    loss_sum: float
    num_correct: int
    fault: Fault | None


class Tally:
    """The totals of an epoch on a device.

    Args:
        device: Where steps are made.
    """

    def __init__(self, device: torch.device) -> None:
        # In double precision, in which a sum is the one that Python's floats would have.
        self._totals = torch.zeros(3, dtype=torch.float64, device=device)
        self._seen = torch.zeros(len(WATCHED), dtype=torch.float64, device=device)
        self._fault = torch.zeros(1 + len(WATCHED), dtype=torch.float64, device=device)

    def start(self, batch: int, loss_sum: float, num_correct: int) -> None:
        """Begins an epoch, or goes on within one.

        Args:
            batch: Batches done in it.
            loss_sum: Their losses.
            num_correct: Their hits.
        """
        self._totals.copy_(torch.tensor([batch, loss_sum, num_correct], dtype=torch.float64))
        self._seen.zero_()
        self._fault.zero_()

    def note(self, what: str, value: Tensor) -> None:
        """Notes a value of the present step, without waiting for it.

        Args:
            what: One of `WATCHED`.
            value: A scalar.
        """
        self._seen[WATCHED.index(what)].copy_(value.detach())

    def add(self, loss: Tensor, num_correct: Tensor) -> None:
        """Ends a step, without waiting for it.

        Args:
            loss: Mean training loss; a scalar.
            num_correct: Hits; a scalar.
        """
        batch, loss_sum, hits = self._totals.unbind()
        batch += 1
        loss_sum += loss.detach()
        hits += num_correct
        is_first = ~self._seen.isfinite().all() & (self._fault[0] == 0)
        found = torch.cat([batch[None], self._seen])
        self._fault.copy_(torch.where(is_first, found, self._fault))

    def read(self) -> Totals:
        """Waits for the device, and says how far the epoch is."""
        _, loss_sum, num_correct, batch, *seen = torch.cat([self._totals, self._fault]).tolist()
        fault = Fault(int(batch), _said(seen)) if batch else None
        # A sum that is not finite comes with a fault.
        return Totals(loss_sum, int(num_correct), fault)


def _said(seen: Sequence[float]) -> str:
    return next(
        f"{what} is {value}"
        for what, value in zip(WATCHED, seen, strict=True)
        if not -float("inf") < value < float("inf")
    )
