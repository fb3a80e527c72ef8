"""Evaluations that are the same work for every batch, so that a GPU can repeat them by itself."""

from collections.abc import Callable

import torch

from search_core.costs import LARGEST_EVALUATION
from search_core.data import Images, LabelledImages
from search_core.evaluation import look_at
from search_core.graphs import Repeated, Workshop, buffer_like, captured_for, copy_into
from search_core.supernet import Supernet


class StaticEvaluation:
    """Measures the same network again and again, as `evaluate` does.

    Args:
        network: The network. What it computes by stays where it is.
        device: Where it is.
        on_failure: Told why the work could not be captured; see `Repeated`.
    """

    def __init__(
        self, network: Supernet, device: torch.device, on_failure: Callable[[str], None]
    ) -> None:
        self._network = network
        self._device = device
        self._on_failure = on_failure
        # In double precision, in which a sum is the one that Python's floats would have.
        self._totals = torch.zeros(2, dtype=torch.float64, device=device)
        self.forget()

    def forget(self) -> None:
        """Captures anew, because what the network computes by has been replaced."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # it may still be at work
        self._buffer: LabelledImages | None = None
        self._captured_for = captured_for(self._network)
        workshop = Workshop(self._device) if self._device.type == "cuda" else None
        self._repeated = Repeated(self._add_buffer, workshop, self._on_failure)

    @torch.no_grad()
    def __call__(self, images: Images | LabelledImages, *, most: int) -> tuple[float, float]:
        """Loss and accuracy in eval mode; the network is left in it.

        Args:
            images: On the network's device; they are not augmented.
            most: Images to look at together, at most 512.

        Returns:
            The mean cross-entropy in nats, and the fraction classified right.
        """
        if self._captured_for != captured_for(self._network):
            self.forget()
        self._network.eval()
        self._totals.zero_()
        for batch in images.in_order(min(most, LARGEST_EVALUATION)):
            if self._buffer is None:
                self._buffer = buffer_like(batch)
            if batch.images_nchw.shape == self._buffer.images_nchw.shape:
                copy_into(self._buffer, batch)
                self._repeated()
            else:
                self._add(batch)
        loss_sum, num_correct = self._totals.tolist()
        return loss_sum / len(images), num_correct / len(images)

    def _add_buffer(self) -> None:
        assert self._buffer is not None
        self._add(self._buffer)

    def _add(self, batch: LabelledImages) -> None:
        self._totals += torch.stack([each.double() for each in look_at(self._network, batch)])
