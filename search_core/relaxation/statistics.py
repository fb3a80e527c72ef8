"""Running statistics of normalisations whose modules are not called.

Legend: c channels.
"""

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Collects what normalisations measured in a forward pass, and records it at its end."""

    def __init__(self) -> None:
        self._measured: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        self._counters: list[Tensor] = []

    def record(self, norm: nn.BatchNorm2d, mean_c: Tensor, unbiased_variance_c: Tensor) -> None:
        """Notes what a normalisation measured; nothing where it is not to track it.

        Args:
            norm: The normalisation.
            mean_c: Mean of the batch.
            unbiased_variance_c: Its variance.
        """
        if not norm.track_running_stats:
            return
        assert norm.momentum is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        running, measured = self._measured.setdefault(norm.momentum, ([], []))
        running += [norm.running_mean, norm.running_var]
        measured += [mean_c, unbiased_variance_c]
        self._counters.append(norm.num_batches_tracked)

    def record_biased(
        self, norm: nn.BatchNorm2d, mean_c: Tensor, variance_c: Tensor, count: int
    ) -> None:
        """Notes what a normalisation measured, given the biased variance.

        Args:
            norm: The normalisation.
            mean_c: Mean of the batch.
            variance_c: Its variance.
            count: Values of a channel.

        Raises:
            ValueError: There is only one, so that nothing can be normalised.
        """
        self.record(norm, mean_c, unbiased(variance_c, count))

    @torch.no_grad()
    def write(self) -> None:
        """Brings the running averages up to date."""
        for momentum, (running, measured) in self._measured.items():
            torch._foreach_lerp_(running, measured, momentum)
        if self._counters:
            torch._foreach_add_(self._counters, 1)


def unbiased(variance_c: Tensor, count: int) -> Tensor:
    """The variance of what values were drawn from.

    Args:
        variance_c: Their own.
        count: Values of a channel.

    Raises:
        ValueError: There is only one, so that nothing can be normalised.
    """
    if count == 1:
        raise ValueError("one value for each channel cannot be normalised; use larger batches")
    return variance_c * (count / (count - 1))
