"""From the weights of the edges to a genotype (arXiv 1806.09055, section 2.4).

Legend: e edges of a cell, p primitives.
"""

from collections.abc import Sequence

from search_core.derive.weights import SupportsToList
from search_core.genotype import CellGenotype, Edge
from search_core.spec.primitives import NONE

Weights = SupportsToList | Sequence[Sequence[float]]
"""Softmaxed weights [e, p]. The edges of node 0 come first, and in each node those of state 0."""


def cell_genotype(
    normal_weights: Weights,
    reduce_weights: Weights,
    primitives: Sequence[str],
    *,
    exclude_none: bool = True,
) -> CellGenotype:
    """Derives both cells: for each node its two heaviest edges, each with its heaviest primitive.

    An edge weighs what its heaviest primitive weighs. Equal edges: the lower one first. Equal
    primitives on an edge: the first one. The output concatenates all nodes.

    Args:
        normal_weights: Softmaxed weights of the normal cell, [e, p].
        reduce_weights: Softmaxed weights of the reduction cell, [e, p].
        primitives: Names of the p columns.
        exclude_none: Never choose `none`, as published. Otherwise `none` competes like any other,
            and an edge that it wins is a zero.

    Returns:
        The genotype; in each node the heavier edge comes first.

    Raises:
        ValueError: The weights do not belong to a cell, or nothing but `none` is left to choose.
    """
    columns = [
        column for column, name in enumerate(primitives) if not (exclude_none and name == NONE)
    ]
    if not columns:
        raise ValueError("no primitive to choose: all there is is 'none'")
    normal = _edges(_rows(normal_weights, len(primitives)), primitives, columns)
    reduce = _edges(_rows(reduce_weights, len(primitives)), primitives, columns)
    return CellGenotype(
        normal=normal,
        normal_concat=tuple(range(2, 2 + len(normal) // 2)),
        reduce=reduce,
        reduce_concat=tuple(range(2, 2 + len(reduce) // 2)),
    )


def _rows(weights_ep: Weights, num_primitives: int) -> list[list[float]]:
    values: Sequence[Sequence[float]] = (
        weights_ep.tolist() if isinstance(weights_ep, SupportsToList) else weights_ep
    )
    rows = [list(row) for row in values]
    for edge, row in enumerate(rows):
        if len(row) != num_primitives:
            raise ValueError(
                f"edge {edge} has {len(row)} weights, but there are {num_primitives} primitives"
            )
    return rows


def _edges(
    rows: list[list[float]], primitives: Sequence[str], columns: list[int]
) -> tuple[Edge, ...]:
    chosen: list[Edge] = []
    start, num_sources = 0, 2
    while start < len(rows):
        node = rows[start : start + num_sources]
        if len(node) < num_sources:
            raise ValueError(
                f"{len(rows)} edges are not those of a cell: 2, 5, 9, 14, ... are, for 1, 2, 3, "
                f"4, ... nodes"
            )
        # max and sorted keep the first of equals, which is the tie rule.
        best = [max(columns, key=row.__getitem__) for row in node]
        heaviest_first = sorted(range(num_sources), key=lambda source: -node[source][best[source]])
        chosen += [Edge(primitives[best[source]], source) for source in heaviest_first[:2]]
        start, num_sources = start + num_sources, num_sources + 1
    return tuple(chosen)
