"""The searches that are compared: the published ones, and one option after the other."""

import time
from dataclasses import dataclass
from typing import Any, Final

import torch

from benchmarks.ground_truth import grids
from search_core.derive.graph import Choices
from search_core.search import SearchRun
from search_core.spec import SearchSpec


@dataclass(frozen=True)
class Variant:
    """A way to search.

    Attributes:
        label: What the table calls it.
        algorithm: The spec's algorithm; None searches nothing, so that all paths weigh the same.
        epochs: Passes over the half of the images that trains the weights.
        batch_size: Images of a step.
        finalists: How many of the heaviest paths are then trained from scratch, as the search's
            own finalists; 0 trains none, and the heaviest is chosen.
    """

    label: str
    algorithm: dict[str, Any] | None
    epochs: int = 24
    batch_size: int = 64
    finalists: int = 0


@dataclass(frozen=True)
class SearchOutcome:
    """What one search came to.

    Attributes:
        variant: Its name.
        seed: Its seed.
        weights: The softmaxed alphas at the end, [positions, operations].
        path: The path that was chosen.
        seconds: CPU seconds, the finalists' included.
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
    "max_w-second-short": Variant(
        "Max-W, second order, 17 epochs", _mixture(weighting="max_w", order="second"), epochs=17
    ),
    "max_w-finalists": Variant(
        "Max-W, first order, then 6 finalists", _mixture(weighting="max_w"), finalists=6
    ),
    "max_w-second-finalists": Variant(
        "Max-W, second order, 9 epochs, then 6 finalists",
        _mixture(weighting="max_w", order="second"),
        epochs=9,
        finalists=6,
    ),
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
    "random": Variant("16 random paths as finalists", None, finalists=16),
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
    started = time.process_time()
    weights, path = (
        _searched(variant, dataset, seed)
        if variant.algorithm is not None
        else _unsearched(variant.finalists, dataset, seed)
    )
    return SearchOutcome(name, seed, weights, path, time.process_time() - started)


def spec_of(variant: Variant, dataset: str) -> SearchSpec:
    """The spec of a variant that searches.

    Args:
        variant: The variant.
        dataset: A name of `grids.DATASETS`.
    """
    assert variant.algorithm is not None
    algorithm = dict(variant.algorithm)
    if variant.finalists:
        algorithm["finalists"] = {
            "paths": variant.finalists,
            "epochs": grids.FINALIST_EPOCHS,
            "validation_portion": grids.VALIDATION_PORTION,
        }
    return grids.search_spec(dataset, algorithm, variant.epochs, variant.batch_size)


def _searched(variant: Variant, dataset: str, seed: int) -> tuple[list[list[float]], Choices]:
    run = SearchRun(spec_of(variant, dataset), seed)
    weights: list[list[float]] = []
    while not run.finished:
        weights = run.run_epoch().alphas["cuboid"]
    found = run.genotype()
    return weights, next(
        path for path in grids.paths(grids.space()) if grids.genotype(path) == found
    )


def _unsearched(finalists: int, dataset: str, seed: int) -> tuple[list[list[float]], Choices]:
    """Equal weights, and the best of some random paths."""
    cuboid = grids.space()
    num_operations = len(cuboid.operations)
    weights = [[1 / num_operations] * num_operations for _ in cuboid.positions]
    paths = grids.paths(cuboid)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    drawn = [paths[index] for index in order[:finalists]]
    return weights, max(drawn, key=lambda path: grids.validate(dataset, path, seed))


def score(weights: list[list[float]], path: Choices) -> float:
    """The sum of the weights of a path's operations.

    Args:
        weights: Of every position and operation.
        path: The index of an operation for each position.
    """
    return sum(row[index] for row, index in zip(weights, path, strict=True))
