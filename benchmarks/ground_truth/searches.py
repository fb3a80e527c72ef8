"""The searches that are compared: the published ones, and one option after the other."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.ground_truth import grids
from search_core.derive.graph import Choices
from search_core.derive.paths import heaviest_choices
from search_core.search import SearchRun


@dataclass(frozen=True)
class Variant:
    """A way to search.

    Attributes:
        label: What the table calls it.
        epochs: Passes over the half of the images that trains the weights.
        algorithm: The spec's algorithm.
    """

    label: str
    epochs: int
    algorithm: dict[str, Any]


@dataclass(frozen=True)
class SearchOutcome:
    """What one search came to.

    Attributes:
        variant: Its name.
        seed: Its seed.
        weights: The softmaxed alphas at the end, [positions, operations].
        path: The heaviest path.
        seconds: CPU seconds.
    """

    variant: str
    seed: int
    weights: list[list[float]]
    path: Choices
    seconds: float


def search(name: str, dataset: str, seed: int) -> SearchOutcome:
    """Searches once.

    Args:
        name: A name of `VARIANTS`.
        dataset: A name of `grids.DATASETS`.
        seed: The search's seed.

    Returns:
        What came out.
    """
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    spec = grids.search_spec(dataset, variant.epochs, variant.algorithm)
    started = time.process_time()
    run = SearchRun(spec, seed)
    alphas: list[list[float]] = []
    while not run.finished:
        alphas = run.run_epoch().alphas["cuboid"]
    seconds = time.process_time() - started
    return SearchOutcome(name, seed, alphas, heaviest_choices(alphas, grids.space()), seconds)


VARIANTS: dict[str, Variant] = {}
"""What is compared, in the order of the table."""
