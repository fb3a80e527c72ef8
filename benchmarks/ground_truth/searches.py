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
        algorithm: The spec's algorithm; None searches nothing, so that all paths weigh the same.
        epochs: Passes over the half of the images that trains the weights.
        batch_size: Images of a step.
        finalists: How many of the heaviest paths are then trained from scratch, once each, on most
            of the training images; the one chosen is the best on the others. 0 trains none, and
            the heaviest is chosen.
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

_FINALIST_EPOCHS: Final = 15
"""As in the grid."""


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
    weights = _weights(variant, dataset, seed)
    path = _chosen(variant, weights, dataset, seed)
    return SearchOutcome(name, seed, weights, path, time.process_time() - started)


def _weights(variant: Variant, dataset: str, seed: int) -> list[list[float]]:
    cuboid = grids.space()
    if variant.algorithm is None:
        num_operations = len(cuboid.operations)
        return [[1 / num_operations] * num_operations for _ in cuboid.positions]
    spec = grids.search_spec(dataset, variant.algorithm, variant.epochs, variant.batch_size)
    run = SearchRun(spec, seed)
    weights: list[list[float]] = []
    while not run.finished:
        weights = run.run_epoch().alphas["cuboid"]
    return weights


def _chosen(variant: Variant, weights: list[list[float]], dataset: str, seed: int) -> Choices:
    if not variant.finalists:
        return heaviest_choices(weights, grids.space())
    paths = grids.paths(grids.space())
    # Equal paths in a random order: it decides alone where nothing was searched.
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    ranked = sorted((paths[index] for index in order), key=lambda path: -score(weights, path))
    return max(
        ranked[: variant.finalists],
        key=lambda path: grids.validate(dataset, path, seed, _FINALIST_EPOCHS),
    )


def score(weights: list[list[float]], path: Choices) -> float:
    """The sum of the weights of a path's operations.

    Args:
        weights: Of every position and operation.
        path: The index of an operation for each position.
    """
    return sum(row[index] for row, index in zip(weights, path, strict=True))
