"""The size of a cell space: what can be counted without building its network. Free of torch."""

from math import comb

from search_core.spec.primitives import NONE
from search_core.spec.spaces import CellSpace

_CELLS = 2
"""Searched together: the normal cell and the reduction cell."""


def num_operations(space: CellSpace) -> int:
    """Weighted operations of both cells: the number of alphas."""
    return _CELLS * space.num_edges * len(space.primitives)


def num_architectures(space: CellSpace, *, exclude_none: bool) -> int:
    """Pairs of cells that derivation can come to.

    Node i keeps two of its 2 + i incoming edges, each with one primitive.

    Args:
        space: The space.
        exclude_none: Whether derivation never chooses `none`.
    """
    primitives = sum(not (exclude_none and name == NONE) for name in space.primitives)
    pairs = 1
    for node in range(space.nodes):
        pairs *= comb(2 + node, 2) * primitives**2
    return int(pairs**_CELLS)
