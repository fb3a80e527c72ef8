"""The cell that a genotype stands for: the chosen operations only (arXiv 1806.09055, section 2.4).

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_core import primitives
from search_core.convolutions import FactorizedReduce, ReluConvNorm
from search_core.drop_path import DropPath
from search_core.genotype import Edge
from search_core.primitives import Slot
from search_core.spec.primitives import Family


class DerivedCell(nn.Module):
    """A cell with the chosen operations only. Its batch normalisations are affine.

    Args:
        edges: Two for each node.
        concat: The states that make up the output.
        family: Which operations the names stand for.
        in_channels: Channels of the older and of the newer input.
        channels: Channels of every node.
        reduction: Whether the edges from the inputs have stride 2.
        reduction_before: Whether the older input is twice as large as the newer one.
        choke_channels: Middle channels of the `choke_conv` primitives.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        concat: Sequence[int],
        family: Family,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        reduction_before: bool,
        choke_channels: int,
    ) -> None:
        super().__init__()
        older_channels, newer_channels = in_channels
        bring_older = FactorizedReduce if reduction_before else ReluConvNorm
        self.older = bring_older(older_channels, channels, affine=True)
        self.newer = ReluConvNorm(newer_channels, channels, affine=True)
        self.sources = [edge.source for edge in edges]
        self.concat = list(concat)
        self.operations = nn.ModuleList()
        for edge in edges:
            stride = 2 if reduction and edge.source < 2 else 1
            slot = Slot(channels, channels, stride, affine=True, choke_channels=choke_channels)
            operation = primitives.build(family, edge.primitive, slot)
            # An identity is never dropped: it is what is left when all else is.
            if not isinstance(operation, nn.Identity):
                operation = nn.Sequential(operation, DropPath())
            self.operations.append(operation)

    def forward(self, older_nchw: Tensor, newer_nchw: Tensor) -> Tensor:
        """The concatenated states, [n, len(concat) * channels, h, w]."""
        states_nchw: list[Tensor] = [self.older(older_nchw), self.newer(newer_nchw)]
        for first in range(0, len(self.sources), 2):
            one_nchw, other_nchw = (
                self.operations[edge](states_nchw[self.sources[edge]])
                for edge in (first, first + 1)
            )
            states_nchw.append(one_nchw + other_nchw)
        return torch.cat([states_nchw[state] for state in self.concat], dim=1)
