"""HyperCuboids of several seeds; see `search_core.cuboid_supernet`.

Legend: n images, s stacked networks, c channels of one of them, h height, w width, e edges of a
cell, p primitives or positions, o operations of a position, k classes.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor, nn

from search_core.cuboid_supernet import CuboidSupernet, Mixture
from search_core.stacking.layers import StackedLinear, of_all
from search_core.stacking.operations import SharedOpenings, stack
from search_core.stacking.supernet import (
    StackedSupernet,
    as_operation,
    by_channel,
    operations,
    pooled,
)


class StackedCuboid(StackedSupernet):
    """See `CuboidSupernet`."""

    def __init__(self, members: Sequence[CuboidSupernet]) -> None:
        super().__init__(members)
        first = members[0]
        self.channels = first.space.channels
        self.weighting = first.weighting
        self._relative_cost = first.relative_cost
        self.alpha = nn.Parameter(of_all([each.alpha for each in members]))
        self.stems = _by_name([each.stems for each in members])
        self.positions = nn.ModuleList(
            StackedMixture(each) for each in zip(*(each.positions for each in members), strict=True)
        )
        self.finals = _by_name([each.finals for each in members])
        self.head = StackedLinear([each.head for each in members])

    def forward(self, x: Tensor) -> Tensor:
        """See `StackedSupernet`."""
        multipliers_spo = self.weighting(self.softmaxed(self.alpha))
        states = {channels: self.stems[str(channels)](x) for channels in self.channels}
        for position, multipliers_so in zip(
            self.positions, multipliers_spo.unbind(dim=1), strict=True
        ):
            states = position(states, multipliers_so)
        finals = [self.finals[str(each)](state) for each, state in states.items()]
        logits_nsk: Tensor = self.head(pooled(reduce(add, finals), self.num_stacked))
        return logits_nsk

    def expected_costs(self) -> Tensor:
        """See `StackedSupernet`."""
        return (self.softmaxed(self.alpha) * self._relative_cost).sum(dim=(1, 2))

    def architecture_parameters(self) -> list[nn.Parameter]:
        """`alpha`, [s, p, o]."""
        return [self.alpha]


class StackedMixture(nn.Module):
    """See `Mixture`."""

    def __init__(self, members: Sequence[Mixture]) -> None:
        super().__init__()
        self.joins = members[0].joins
        self.operations = operations([each.operations for each in members])

    def forward(self, states: dict[int, Tensor], multipliers_so: Tensor) -> dict[int, Tensor]:
        """The next states; see `Mixture.forward`."""
        openings = {channels: SharedOpenings(state) for channels, state in states.items()}
        scales = {channels: by_channel(multipliers_so, channels) for channels in states}
        sums: dict[int, Tensor] = {}
        for index, (each, join) in enumerate(zip(self.operations, self.joins, strict=True)):
            in_channels, out_channels = join
            term = openings[in_channels](as_operation(each), scales[out_channels][index])
            known = sums.get(out_channels)
            sums[out_channels] = term if known is None else known + term
        return {channels: sums[channels] for channels in states}


def _by_name(members: Sequence[nn.ModuleDict]) -> nn.ModuleDict:
    return nn.ModuleDict({name: stack([each[name] for each in members]) for name in members[0]})
