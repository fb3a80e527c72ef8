"""Pictures by Graphviz: architectures of either kind, and weighted hypercuboids.

A module for each kind makes the DOT language; `rendering` makes SVG of it.
"""

from collections.abc import Sequence

from search_core.genotype import CellGenotype, Genotype
from service.drawing import cells, paths
from service.drawing.cells import CELLS, CellName
from service.drawing.rendering import to_svg

__all__ = ["CELLS", "CellName", "architecture_dot", "to_svg"]


def architecture_dot(genotype: Genotype, which: Sequence[CellName] = CELLS) -> str:
    """An architecture in the DOT language.

    Args:
        genotype: The architecture.
        which: Of a pair of cells: those to draw; several stand one above the other.
    """
    if isinstance(genotype, CellGenotype):
        return cells.to_dot(genotype, which)
    return paths.to_dot(genotype)
