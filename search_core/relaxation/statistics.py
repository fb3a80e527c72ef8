"""Running statistics of normalisations whose modules are not called.

Legend: k normalisations, c channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from search_core.relaxation import adjacent
from search_core.relaxation.works import Known


class RunningStatistics:
    """Collects what normalisations measured in a forward pass, and records it at its end."""

    def __init__(self) -> None:
        self._measured: dict[float, _Measured] = {}
        self._counters: list[Tensor] = []

    def record(self, norm: nn.BatchNorm2d, mean_c: Tensor, unbiased_variance_c: Tensor) -> None:
        """Notes what a normalisation measured; nothing where it is not to track it.

        Args:
            norm: The normalisation.
            mean_c: Mean of the batch.
            unbiased_variance_c: Its variance.
        """
        self._note(norm, mean_c, unbiased_variance_c, 1.0)

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
        self._note(norm, mean_c, variance_c, correction(count))

    @torch.no_grad()
    def write(self) -> None:
        """Brings the running averages up to date."""
        for momentum, noted in self._measured.items():
            variances: list[Tensor] | tuple[Tensor, ...] = noted.variances
            if any(correction != 1 for correction in noted.corrections):
                variances = torch._foreach_mul(variances, noted.corrections)
            torch._foreach_lerp_(noted.running_means, noted.means, momentum)
            torch._foreach_lerp_(noted.running_variances, variances, momentum)
        if self._counters:
            torch._foreach_add_(self._counters, 1)

    def _note(
        self, norm: nn.BatchNorm2d, mean_c: Tensor, variance_c: Tensor, correction: float
    ) -> None:
        if not norm.track_running_stats:
            return
        # Modules take long to find what they hold.
        mean, variance, counter = map(
            norm._buffers.get, ("running_mean", "running_var", "num_batches_tracked")
        )
        assert norm.momentum is not None
        assert mean is not None
        assert variance is not None
        assert counter is not None
        noted = self._measured.setdefault(norm.momentum, _Measured())
        noted.running_means.append(mean)
        noted.running_variances.append(variance)
        noted.means.append(mean_c)
        noted.variances.append(variance_c)
        noted.corrections.append(correction)
        self._counters.append(counter)


@dataclass
class _Measured:
    """What normalisations of the same momentum measured, in lists that are as long.

    Attributes:
        running_means: Averages of the means.
        running_variances: Averages of the variances.
        means: Of the batch.
        variances: Likewise.
        corrections: What makes these unbiased; all at once, since there are thousands.
    """

    running_means: list[Tensor] = field(default_factory=list)
    running_variances: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)
    corrections: list[float] = field(default_factory=list)


def known_statistics(norms: Sequence[nn.BatchNorm2d]) -> Known | None:
    """What normalisations go by that do not train, side by side.

    Args:
        norms: In the same mode.

    Returns:
        Means and variances; None where they train.
    """
    if norms[0].training:
        return None
    return Known(*map(adjacent.beside, _running(norms)))


def bring_together(norms: Sequence[nn.BatchNorm2d]) -> None:
    """Moves running statistics to where evaluation finds them side by side.

    In training already: captured steps know where they are.

    Args:
        norms: Those that are evaluated together.
    """
    for running in _running(norms):
        adjacent.bring_together(running)


def _running(norms: Sequence[nn.BatchNorm2d]) -> tuple[list[Tensor], list[Tensor]]:
    means, variances = [], []
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        means.append(mean)
        variances.append(variance)
    return means, variances


def correction(count: int) -> float:
    """What makes a biased variance unbiased.

    Args:
        count: Values that it was taken of.

    Raises:
        ValueError: There is only one, so that nothing can be normalised.
    """
    if count == 1:
        raise ValueError("one value for each channel cannot be normalised; use larger batches")
    return count / (count - 1)
