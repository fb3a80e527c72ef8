"""What two genotypes have in common and what not, node by node or step by step. Free of torch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, overload

from search_core.errors import IncomparableError
from search_core.genotype import CellGenotype, Edge, Genotype, PathGenotype
from search_core.path_diff import PathDiff, path_diff


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
    """Both cells of two cell genotypes.

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


@overload
def diff(a: CellGenotype, b: CellGenotype) -> GenotypeDiff: ...
@overload
def diff(a: PathGenotype, b: PathGenotype) -> PathDiff: ...
@overload
def diff(a: Genotype, b: Genotype) -> GenotypeDiff | PathDiff: ...


def diff(a: Genotype, b: Genotype) -> GenotypeDiff | PathDiff:
    """Compares two architectures by structure.

    The nodes of cells are compared by number: a node that does the same under another number
    differs. So are the steps of paths.

    Args:
        a: The first.
        b: The second, of the same kind; it may have another number of nodes or steps.

    Returns:
        Of cells for each cell and node the edges of both and of either only; of paths for each
        step what is not the same.

    Raises:
        IncomparableError: One is of cells and the other a path.
    """
    if isinstance(a, CellGenotype) and isinstance(b, CellGenotype):
        return _cells_diff(a, b)
    if isinstance(a, PathGenotype) and isinstance(b, PathGenotype):
        return path_diff(a, b)
    raise IncomparableError(
        f"the first is of kind {a.kind!r} and the second of kind {b.kind!r}; cells are compared "
        "with cells, and paths with paths"
    )


def _cells_diff(a: CellGenotype, b: CellGenotype) -> GenotypeDiff:
    return GenotypeDiff(
        normal=CellDiff("normal", _nodes(a.normal, b.normal), a.normal_concat, b.normal_concat),
        reduce=CellDiff("reduce", _nodes(a.reduce, b.reduce), a.reduce_concat, b.reduce_concat),
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
