"""The ground truth: every path of a small cuboid, trained from scratch with several seeds."""

import time
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Final

import torch

from search_core.derive.graph import Choices, read
from search_core.genotype import PathGenotype
from search_core.spec import SearchSpec
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingRun

SPACE: Final = {
    "kind": "hypercuboid",
    "axes": {"channels": [8, 24], "operation": ["sharp_sep_conv", "resizable_pool"]},
    "levels": 3,
    "strides": [2],
    "final_channels": 32,
}
"""128 paths: a stem of 8 or 24 channels, then three times 8 or 24 channels by either operation."""

DATASETS: Final[dict[str, dict[str, Any]]] = {
    "digits": {"name": "digits"},
    "synthetic": {
        "name": "synthetic",
        "num_train": 2048,
        "num_test": 1024,
        "image_shape": [1, 8, 8],
        "noise": 0.3,
    },
}

_TRAINING: Final = {"batch_size": 64, "learning_rate": 0.1, "schedule": {"kind": "cosine"}}


@dataclass(frozen=True)
class GridPoint:
    """One path, trained.

    Attributes:
        path: The index of an operation for each position.
        accuracies: Test accuracy after the last epoch, a fraction, one for each seed.
        seconds: CPU seconds of one training, a mean over the seeds.
    """

    path: Choices
    accuracies: list[float]
    seconds: float


def space() -> HyperCuboidSpace:
    """The cuboid."""
    return HyperCuboidSpace.model_validate(SPACE)


def paths(cuboid: HyperCuboidSpace) -> list[Choices]:
    """All paths, in the space's order."""
    operations = cuboid.operations
    return [
        path
        for path in product(range(len(operations)), repeat=len(cuboid.positions))
        if all(
            operations[before].out_channels == operations[after].in_channels
            for before, after in pairwise(path)
        )
    ]


def genotype(path: Choices) -> PathGenotype:
    """The architecture of a path."""
    cuboid = space()
    nothing = [[0.0] * len(cuboid.operations)] * len(cuboid.positions)
    return read(nothing, cuboid).genotype(path)


def train(dataset: str, path: Choices, seeds: int, epochs: int) -> GridPoint:
    """Trains a path from scratch, on all training images, as often as there are seeds.

    Args:
        dataset: A name of `DATASETS`.
        path: The path.
        seeds: Seeds from 0.
        epochs: Of each training.

    Returns:
        What came out.
    """
    torch.set_num_threads(1)
    spec = RetrainingSpec.model_validate(
        {
            "architecture": genotype(path),
            "dataset": DATASETS[dataset],
            "validation_portion": 0.0,
            "training": {"epochs": epochs, **_TRAINING},
        }
    )
    accuracies = []
    seconds = 0.0
    for seed in range(seeds):
        started = time.process_time()
        run = TrainingRun(spec, seed)
        while not run.finished:
            run.run_epoch()
        seconds += time.process_time() - started
        accuracies.append(run.result().last.accuracy)
    return GridPoint(path, accuracies, seconds / seeds)


def search_spec(
    dataset: str, algorithm: dict[str, Any], epochs: int, batch_size: int
) -> SearchSpec:
    """The search of the same cuboid on the same images by the same recipe.

    Args:
        dataset: A name of `DATASETS`.
        algorithm: How the alphas are searched.
        epochs: Of the search.
        batch_size: Of either half.

    Returns:
        The spec.
    """
    return SearchSpec.model_validate(
        {
            "space": SPACE,
            "dataset": DATASETS[dataset],
            "algorithm": algorithm,
            "training": {**_TRAINING, "epochs": epochs, "batch_size": batch_size},
        }
    )
