"""What two cell genotypes have in common and what not, node by node. Free of torch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from search_core.genotype import CellGenotype, Edge


@dataclass(frozen=True)
class NodeDiff:
    """The edges into one node of two cells. Their order within the node does not matter.

    Attributes:
        node: The node, from 0.
        same: Edges of both, sorted by source.
        only_in_a: Edges of the first cell only; both of its edges where the second lacks the node.
        only_in_b: Edges of the second cell only.
    """

    node: int
    same: tuple[Edge, ...]
    only_in_a: tuple[Edge, ...]
    only_in_b: tuple[Edge, ...]


@dataclass(frozen=True)
class CellDiff:
    """One kind of cell of two genotypes.

    Attributes:
        cell: Which kind.
        nodes: Every node that either has.
        concat_a: States that make up the first cell's output.
        concat_b: States that make up the second cell's output; their order matters.
    """

    cell: Literal["normal", "reduce"]
    nodes: tuple[NodeDiff, ...]
    concat_a: tuple[int, ...]
    concat_b: tuple[int, ...]

    @property
    def identical(self) -> bool:
        """Whether both cells compute the same."""
        return self.concat_a == self.concat_b and not any(
            node.only_in_a or node.only_in_b for node in self.nodes
        )


@dataclass(frozen=True)
class GenotypeDiff:
    """Both cells of two genotypes.

    Attributes:
        normal: The normal cells.
        reduce: The reduction cells.
    """

    normal: CellDiff
    reduce: CellDiff

    @property
    def identical(self) -> bool:
        """Whether both are the same architecture, that is, have the same hash."""
        return self.normal.identical and self.reduce.identical


def diff(a: CellGenotype, b: CellGenotype) -> GenotypeDiff:
    """Compares two architectures by structure.

    Nodes are compared by number: a node that does the same under another number differs.

    Args:
        a: The first.
        b: The second; it may have another number of nodes.

    Returns:
        For each cell and node, the edges of both and of either only.
    """
    return GenotypeDiff(
        normal=CellDiff(
            "normal", _nodes(a.normal, b.normal), tuple(a.normal_concat), tuple(b.normal_concat)
        ),
        reduce=CellDiff(
            "reduce", _nodes(a.reduce, b.reduce), tuple(a.reduce_concat), tuple(b.reduce_concat)
        ),
    )


def _nodes(a: tuple[Edge, ...], b: tuple[Edge, ...]) -> tuple[NodeDiff, ...]:
    nodes = []
    for first in range(0, max(len(a), len(b)), 2):
        # Counted and not as sets: both edges of a node may be the same.
        edges_a, edges_b = Counter(a[first : first + 2]), Counter(b[first : first + 2])
        nodes.append(
            NodeDiff(
                first // 2,
                same=_sorted((edges_a & edges_b).elements()),
                only_in_a=_sorted((edges_a - edges_b).elements()),
                only_in_b=_sorted((edges_b - edges_a).elements()),
            )
        )
    return tuple(nodes)


def _sorted(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    return tuple(sorted(edges, key=lambda edge: (edge.source, edge.primitive)))
