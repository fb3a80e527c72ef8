"""The searches that are compared: the published ones, and one option after the other."""

import time
from dataclasses import dataclass
from typing import Any, Final

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
        algorithm: The spec's algorithm.
        epochs: Passes over the half of the images that trains the weights.
        batch_size: Images of a step.
    """

    label: str
    algorithm: dict[str, Any]
    epochs: int = 24
    batch_size: int = 64


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


def _mixture(**algorithm: Any) -> dict[str, Any]:
    return {"architecture_learning_rate": 0.05, **algorithm}


def _paths(weights: str, *, alphas: str = "paths", **algorithm: Any) -> dict[str, Any]:
    sampling = {"weights": weights, "alphas": alphas, "paths": 16}
    return {"architecture_learning_rate": 0.1, "sampling": sampling, **algorithm}


VARIANTS: Final[dict[str, Variant]] = {
    "scalar": Variant("scalar, first order", _mixture()),
    "scalar-second": Variant("scalar, second order", _mixture(order="second")),
    "max_w": Variant("Max-W, first order", _mixture(weighting="max_w")),
    "max_w-second": Variant("Max-W, second order", _mixture(weighting="max_w", order="second")),
    "warmup": Variant(
        "Max-W, alphas wait for 12 epochs", _mixture(weighting="max_w", warmup_epochs=12)
    ),
    "temperature": Variant(
        "Max-W, temperature from 2 to 0.2",
        _mixture(weighting="max_w", temperature=2.0, final_temperature=0.2),
    ),
    "one-path": Variant("one path a step, scalar", _paths("uniform", warmup_epochs=60), epochs=100),
    "fair-mixture": Variant(
        "fair paths, alphas by the mixture, Max-W",
        _paths("fair", alphas="mixture", weighting="max_w", warmup_epochs=12),
        epochs=20,
        batch_size=32,
    ),
    "fair-scalar": Variant(
        "fair paths, scalar", _paths("fair", warmup_epochs=12), epochs=20, batch_size=32
    ),
    "fair-max_w": Variant(
        "fair paths, Max-W",
        _paths("fair", weighting="max_w", warmup_epochs=12),
        epochs=20,
        batch_size=32,
    ),
    "fair-max_w-detached": Variant(
        "fair paths, Max-W with its maximum detached",
        _paths("fair", weighting="max_w", detach_max=True, warmup_epochs=12),
        epochs=20,
        batch_size=32,
    ),
}
"""What is compared, in the order of the table. The first four are the published ones."""


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
    spec = grids.search_spec(dataset, variant.algorithm, variant.epochs, variant.batch_size)
    started = time.process_time()
    run = SearchRun(spec, seed)
    alphas: list[list[float]] = []
    while not run.finished:
        alphas = run.run_epoch().alphas["cuboid"]
    seconds = time.process_time() - started
    return SearchOutcome(name, seed, alphas, heaviest_choices(alphas, grids.space()), seconds)
