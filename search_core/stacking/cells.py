"""Relaxed cells of several seeds; see `search_core.cells`.

Legend: n images, s stacked networks, c channels of one of them, h height, w width, e edges of a
cell, p primitives or positions, o operations of a position, k classes.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor, nn

from search_core.cells import MixedEdge, RelaxedCell
from search_core.stacking.layers import StackedLinear, joined, of_all
from search_core.stacking.operations import SharedOpenings, stack
from search_core.stacking.supernet import (
    StackedSupernet,
    as_operation,
    by_channel,
    operations,
    pooled,
)
from search_core.supernet import CellSupernet


class StackedCells(StackedSupernet):
    """See `CellSupernet`."""

    def __init__(self, members: Sequence[CellSupernet]) -> None:
        super().__init__(members)
        first = members[0]
        self.weighting = first.weighting
        self.reductions = first.reductions
        self.alpha_normal = nn.Parameter(of_all([each.alpha_normal for each in members]))
        self.alpha_reduce = nn.Parameter(of_all([each.alpha_reduce for each in members]))
        self.stem = stack([each.stem for each in members])
        self.cells = nn.ModuleList(
            StackedCell(cells) for cells in zip(*(each.cells for each in members), strict=True)
        )
        self.head = StackedLinear([each.head for each in members])

    def forward(self, x: Tensor) -> Tensor:
        """See `StackedSupernet`."""
        normal_sep = self.weighting(self.softmaxed(self.alpha_normal))
        reduce_sep = self.weighting(self.softmaxed(self.alpha_reduce))
        older = newer = self.stem(x)
        for index, cell in enumerate(self.cells):
            multipliers_sep = reduce_sep if index in self.reductions else normal_sep
            older, newer = newer, cell(older, newer, multipliers_sep)
        logits_nsk: Tensor = self.head(pooled(newer, self.num_stacked))
        return logits_nsk

    def architecture_parameters(self) -> list[nn.Parameter]:
        """`alpha_normal` and `alpha_reduce`, each [s, e, p]."""
        return [self.alpha_normal, self.alpha_reduce]


class StackedCell(nn.Module):
    """See `RelaxedCell`."""

    def __init__(self, members: Sequence[RelaxedCell]) -> None:
        super().__init__()
        self.num_stacked = len(members)
        self.num_nodes = members[0].num_nodes
        self.older = stack([each.older for each in members])
        self.newer = stack([each.newer for each in members])
        self.edges = nn.ModuleList(
            StackedEdge(edges) for edges in zip(*(each.edges for each in members), strict=True)
        )

    def forward(self, older: Tensor, newer: Tensor, multipliers_sep: Tensor) -> Tensor:
        """The concatenated nodes; see `RelaxedCell.forward`."""
        states = [self.older(older), self.newer(newer)]
        openings = [SharedOpenings(state) for state in states]
        channels = states[0].shape[1] // self.num_stacked
        scales = by_channel(multipliers_sep.flatten(1), channels)
        num_primitives = multipliers_sep.shape[2]
        first_edge = 0
        for _ in range(self.num_nodes):
            terms: list[Tensor] = []
            for source, opened in enumerate(openings):
                edge = self.edges[first_edge + source]
                assert isinstance(edge, StackedEdge)
                at = (first_edge + source) * num_primitives
                terms += edge.terms(opened, scales[at : at + num_primitives])
            first_edge += len(states)
            states.append(reduce(add, terms))
            openings.append(SharedOpenings(states[-1]))
        return joined(states[2:], self.num_stacked)


class StackedEdge(nn.Module):
    """See `MixedEdge`."""

    def __init__(self, members: Sequence[MixedEdge]) -> None:
        super().__init__()
        self.columns = members[0].columns
        self.operations = operations([each.operations for each in members])

    def terms(self, state: SharedOpenings, scales: Sequence[Tensor]) -> list[Tensor]:
        """What the primitives add to a node.

        Args:
            state: The edge's source.
            scales: For each primitive its multiplier by channel, [s * c].
        """
        return [
            state(as_operation(each), scales[column])
            for column, each in zip(self.columns, self.operations, strict=True)
        ]
