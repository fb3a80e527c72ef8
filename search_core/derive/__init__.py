"""From the weights of a search to an architecture: cells, and paths through a HyperCuboid."""

from search_core.derive.budget import CostMeasure, heaviest_path_within
from search_core.derive.cells import cell_genotype
from search_core.derive.paths import (
    RankedPath,
    beam_paths,
    best_paths,
    heaviest_path,
    path_score,
)

__all__ = [
    "CostMeasure",
    "RankedPath",
    "beam_paths",
    "best_paths",
    "cell_genotype",
    "heaviest_path",
    "heaviest_path_within",
    "path_score",
]
