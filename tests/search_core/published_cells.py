"""Published architectures that are pairs of cells, as their type says."""

from search_core import published
from search_core.genotype import CellGenotype

NAMES = [name for name in published.names() if published.get(name).family is not None]


def cells(name: str) -> CellGenotype:
    """The pair of cells of this name."""
    genotype = published.get(name).genotype
    assert isinstance(genotype, CellGenotype)
    return genotype
