"""The network of several seeds, which lie side by side in one tensor from the stem to the head.

Legend: n images, s stacked networks, c channels of one of them, h height, w width, e edges of a
cell, p primitives or positions, o operations of a position, k classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_core.stacking.layers import StackedNorm, apart
from search_core.stacking.operations import Operation, operation, set_recording
from search_core.supernet import Supernet


class StackedSupernet(nn.Module, ABC):
    """Several supernets of one spec as one network.

    Parameters and buffers are named like a member's and have one more dimension in front. Those
    that the members had become views of the stacked ones: whatever either side changes in place,
    the other one has, and a member's `state_dict` is its own.

    Args:
        members: The supernets, on one device.
    """

    def __init__(self, members: Sequence[Supernet]) -> None:
        super().__init__()
        self.num_stacked = len(members)
        first = members[0]
        self.temperature = first.temperature

    @abstractmethod
    def architecture_parameters(self) -> list[nn.Parameter]:
        """The alphas, in a member's order."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The logits of each network on its own images.

        Args:
            x: [n, s * c, h, w]; see `images_of`.

        Returns:
            [n, s, k].
        """

    def weight_parameters(self) -> list[nn.Parameter]:
        """All parameters that are not alphas, in a member's order."""
        alphas = {id(alpha) for alpha in self.architecture_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in alphas]

    def expected_costs(self) -> Tensor:
        """What `Supernet.expected_cost` is of each network, [s].

        Raises:
            NotImplementedError: Candidates of this space do not say what they cost.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know what its candidates cost")

    def softmaxed(self, alpha: Tensor) -> Tensor:
        """See `Supernet.softmaxed`."""
        return (alpha / self.temperature).softmax(dim=-1)

    def count_batch(self) -> None:
        """Adds a batch to those that the normalisations have recorded."""
        counters = [
            module.num_batches_tracked
            for module in self.modules()
            if isinstance(module, StackedNorm)
        ]
        if counters:
            torch._foreach_add_(counters, 1)

    def set_recording(self, records: bool) -> None:
        """Sets whether passes in training mode change the running statistics."""
        set_recording(self, records)


def operations(members: Sequence[nn.ModuleList]) -> nn.ModuleList:
    """The operations of a mixture, stacked one by one."""
    return nn.ModuleList(operation(each) for each in zip(*members, strict=True))


def by_channel(multipliers_sk: Tensor, channels: int) -> Sequence[Tensor]:
    """For each of k candidates its multipliers by channel, [s * c]."""
    num_stacked, candidates = multipliers_sk.shape
    expanded = multipliers_sk.t().unsqueeze(2).expand(candidates, num_stacked, channels)
    return expanded.reshape(candidates, num_stacked * channels).unbind()


def pooled(x: Tensor, num_stacked: int) -> Tensor:
    """The mean over all pixels, [n, s, c]."""
    return apart(x.mean(dim=(2, 3)), 1, num_stacked)


def as_operation(module: nn.Module) -> Operation:
    """The module as what it is, for the type checker."""
    assert isinstance(module, Operation)
    return module
