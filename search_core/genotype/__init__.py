"""Architectures as values: typed, versioned JSON, a text form, a canonical hash. Free of torch.

A genotype of kind `cell` says which operations join which states of a cell; the operations that its
primitive names stand for (the family), and the width and depth of the network, are chosen when it
is built. One of kind `path` is a whole network.
"""

from search_core.genotype.cell import CellGenotype, Edge
from search_core.genotype.kinds import Genotype, json_schema, kind_of
from search_core.genotype.path import PathGenotype, PathStep
from search_core.genotype.text import parse

__all__ = [
    "CellGenotype",
    "Edge",
    "Genotype",
    "PathGenotype",
    "PathStep",
    "json_schema",
    "kind_of",
    "parse",
]
