"""The ground truth: every path of a small cuboid, trained from scratch with several seeds."""

import time
from collections.abc import Sequence
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


FINALIST_EPOCHS: Final = 15
"""Of a finalist's training; as in the grid."""

VALIDATION_PORTION: Final = 0.3
"""Of the training images, where finalists are compared."""


@dataclass(frozen=True)
class GridPoint:
    """One path, trained.

    Attributes:
        path: The index of an operation for each position.
        accuracies: Test accuracy after the last epoch, a fraction, of the seeds 0, 1, ...
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


def train(dataset: str, path: Choices, seeds: Sequence[int], epochs: int) -> GridPoint:
    """Trains a path from scratch, on all training images, once with each seed.

    Args:
        dataset: A name of `DATASETS`.
        path: The path.
        seeds: One for each training.
        epochs: Of each training.

    Returns:
        What came out.
    """
    torch.set_num_threads(1)
    accuracies = []
    seconds = 0.0
    for seed in seeds:
        started = time.process_time()
        run = TrainingRun(_recipe(dataset, path, epochs), seed)
        while not run.finished:
            run.run_epoch()
        seconds += time.process_time() - started
        accuracies.append(run.result().last.accuracy)
    return GridPoint(path, accuracies, seconds / len(seeds))


def validate(dataset: str, path: Choices, seed: int, epochs: int = FINALIST_EPOCHS) -> float:
    """Trains a path from scratch on most training images, and measures it on the others.

    As a search does with its finalists.

    Args:
        dataset: A name of `DATASETS`.
        path: The path.
        seed: Of the training, and of the images held out.
        epochs: Of the training.

    Returns:
        Accuracy on the images held out, a fraction. The test images are not looked at.
    """
    run = TrainingRun(_recipe(dataset, path, epochs, VALIDATION_PORTION), seed)
    accuracy = 0.0
    while not run.finished:
        accuracy = run.run_epoch().metrics["validation_accuracy"]
    return accuracy


def _recipe(
    dataset: str, path: Choices, epochs: int, validation_portion: float = 0.0
) -> RetrainingSpec:
    return RetrainingSpec.model_validate(
        {
            "architecture": genotype(path),
            "dataset": DATASETS[dataset],
            "validation_portion": validation_portion,
            "training": {"epochs": epochs, **_TRAINING},
        }
    )


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
