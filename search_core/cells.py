"""The relaxed cell: every edge mixes all primitives (arXiv 1806.09055, sections 2.1 and 2.2).

Legend: n images, c channels, h height, w width, e edges of a cell, p primitives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_core import primitives
from search_core.convolutions import FactorizedReduce, ReluConvNorm
from search_core.primitives import Slot
from search_core.relaxation import (
    MixturePlan,
    Multipliers,
    Planner,
    RunningStatistics,
    Shared,
    State,
    Term,
    as_images,
)
from search_core.spec.primitives import NONE, Family
from search_core.spec.spaces import CellSpace


class MixedEdge(nn.Module):
    """All primitives on one edge, summed by multipliers. Batch normalisations are not affine.

    Args:
        family: Which operations the names stand for.
        names: The primitives in the order of the multipliers.
        slot: Where they are put.
    """

    def __init__(self, family: Family, names: Sequence[str], slot: Slot) -> None:
        super().__init__()
        # `none` adds nothing whatever its multiplier, so it has a column but no module.
        self.columns = tuple(column for column, name in enumerate(names) if name != NONE)
        self.operations = nn.ModuleList(
            _normalised(family, names[column], slot) for column in self.columns
        )

    def forward(self, x_nchw: Tensor, multipliers_p: Tensor) -> Tensor:
        """The weighted sum of all primitives of x_nchw."""
        terms_nchw: list[Tensor] = [
            multipliers_p[column] * operation(x_nchw)
            for column, operation in zip(self.columns, self.operations, strict=True)
        ]
        return _sum(terms_nchw)


class RelaxedCell(nn.Module):
    """A cell whose edges are mixed. It has as many output channels as nodes times channels.

    Args:
        space: Nodes, primitives and family.
        in_channels: Channels of the older and of the newer input.
        channels: Channels of every node.
        reduction: Whether the edges from the inputs have stride 2.
        reduction_before: Whether the newer input comes out of a reduction, so that the older one
            is still twice as large.
    """

    def __init__(
        self,
        space: CellSpace,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        older_channels, newer_channels = in_channels
        bring_older = FactorizedReduce if reduction_before else ReluConvNorm
        self.older = bring_older(older_channels, channels, affine=False)
        self.newer = ReluConvNorm(newer_channels, channels, affine=False)
        self.num_nodes = space.nodes
        self.num_primitives = len(space.primitives)
        self.edges = nn.ModuleList(
            MixedEdge(
                space.family,
                space.primitives,
                Slot(
                    channels,
                    channels,
                    stride=2 if reduction and source < 2 else 1,
                    affine=False,
                    choke_channels=space.choke_channels,
                ),
            )
            for node in range(space.nodes)
            for source in range(2 + node)
        )
        self._plans: _Plans | None = None

    def plan(self, planner: Planner) -> None:
        """Lets plans compute the nodes; see `search_core.relaxation`.

        Args:
            planner: Makes the plans.
        """
        inputs = [Term("older", 0, 0, self.older), Term("newer", 1, 1, self.newer)]
        together = planner(inputs)
        self._plans = _Plans(
            [(together, inputs)]
            if together.suits_unrelated
            else [(planner([term]), [term]) for term in inputs],
            [planner(terms) for terms in self._parts(by_source=together.by_source)],
        )

    def unplan(self) -> None:
        """Computes the nodes edge by edge again."""
        self._plans = None

    @property
    def planned(self) -> bool:
        """Whether plans compute the nodes."""
        return self._plans is not None

    @property
    def evaluates_by_plan(self) -> bool:
        """Whether they do so in evaluation, too."""
        return self._plans is not None and self._plans.evaluate

    def forward(self, older: State, newer: State, multipliers_ep: Tensor) -> State:
        """The concatenated nodes.

        Args:
            older: Output of the cell before the last.
            newer: Output of the last cell.
            multipliers_ep: Multipliers of this kind of cell, edges in derivation order.

        Returns:
            The output, [n, nodes * channels, h, w] with h and w halved by a reduction; in lanes
            where a plan has computed it so.
        """
        plans = self._plans
        if plans is not None and (self.training or self.evaluates_by_plan) and plans.apply:
            return self._planned(plans, older, newer, multipliers_ep)
        states_nchw = [self.older(as_images(older)), self.newer(as_images(newer))]
        first_edge = 0
        for _ in range(self.num_nodes):
            terms_nchw = [
                self.edges[first_edge + source](state_nchw, multipliers_ep[first_edge + source])
                for source, state_nchw in enumerate(states_nchw)
            ]
            first_edge += len(states_nchw)
            states_nchw.append(_sum(terms_nchw))
        return torch.cat(states_nchw[2:], dim=1)

    def _planned(
        self, plans: "_Plans", older: State, newer: State, multipliers_ep: Tensor
    ) -> State:
        statistics = RunningStatistics()
        shared = Shared(statistics, is_dense=plans.nodes[0].is_dense)
        shared.add("older", older)
        shared.add("newer", newer)
        for plan, terms in plans.inputs:
            if len(terms) > 1 or plan.suits_single:
                plan(shared, plans.ones(multipliers_ep)[: len(terms)], statistics)
            else:
                shared.add(terms[0].target, terms[0].operation(shared.get(terms[0].source)))
        parts = plans.multipliers.of(multipliers_ep.flatten())
        for plan, multipliers_k in zip(plans.nodes, parts, strict=True):
            plan(shared, multipliers_k, statistics)
        statistics.write()
        return shared.concatenated(range(2, 2 + self.num_nodes))

    def _parts(self, *, by_source: bool) -> list[list[Term]]:
        """The terms as they are computed together."""
        nodes = [self._terms(node) for node in range(self.num_nodes)]
        if not by_source:
            return nodes
        # Each node is complete before the first part that reads it.
        terms = [term for node in nodes for term in node]
        sources: list[tuple[int, ...]] = [(0, 1), *((2 + node,) for node in range(len(nodes) - 1))]
        return [[term for term in terms if term.source in part] for part in sources]

    def _terms(self, node: int) -> list[Term]:
        first_edge = sum(2 + before for before in range(node))
        terms = []
        for source in range(2 + node):
            edge = self.edges[first_edge + source]
            assert isinstance(edge, MixedEdge)
            first_column = (first_edge + source) * self.num_primitives
            terms += [
                Term(source, 2 + node, first_column + column, operation)
                for column, operation in zip(edge.columns, edge.operations, strict=True)
            ]
        return terms


class _Plans:
    """How a cell is computed by plans.

    Args:
        inputs: Make what the nodes read of the cell's inputs, with the terms that they compute.
        nodes: Make the nodes.

    Attributes:
        inputs: As given.
        nodes: As given.
        multipliers: Parts the nodes' multipliers among their plans.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[MixturePlan, Sequence[Term]]],
        nodes: Sequence[MixturePlan],
    ) -> None:
        self.inputs = inputs
        self.nodes = nodes
        self.multipliers = Multipliers(nodes)
        self._ones: Tensor | None = None

    def ones(self, like: Tensor) -> Tensor:
        """The multipliers of the inputs, [2].

        Args:
            like: A tensor of their type, and where they are to be.
        """
        ones = self._ones
        if ones is None or (ones.device, ones.dtype) != (like.device, like.dtype):
            ones = self._ones = like.new_ones(2)
        return ones

    @property
    def evaluate(self) -> bool:
        """Whether they are for evaluation, too."""
        return all(plan.evaluates for plan in self.nodes)

    @property
    def apply(self) -> bool:
        """Whether all operations are in a state that the plans know."""
        return all(plan.applies for plan, _ in self.inputs) and all(
            plan.applies for plan in self.nodes
        )


def _normalised(family: Family, name: str, slot: Slot) -> nn.Module:
    operation = primitives.build(family, name, slot)
    if "pool" not in name:
        return operation
    # During a search a pool's output is brought to the scale of the other candidates.
    return nn.Sequential(operation, nn.BatchNorm2d(slot.out_channels, affine=False))


def _sum(terms_nchw: list[Tensor]) -> Tensor:
    total_nchw = terms_nchw[0]
    for term_nchw in terms_nchw[1:]:
        total_nchw = total_nchw + term_nchw
    return total_nchw
