"""The searches of a run: tiny ones of every kind, with what their user does to them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from store.jobs import JobSpec
from store.states import JobKind

EPOCHS: Final = 12

_CELLS: Final[dict[str, Any]] = {
    "space": {
        "kind": "darts",
        "channels": 2,
        "cells": 3,
        "nodes": 1,
        "primitives": ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"],
    },
    "dataset": {"name": "digits"},
    "training": {"epochs": EPOCHS, "batch_size": 128},
}
_CUBOID: Final[dict[str, Any]] = {
    "space": {
        "kind": "hypercuboid",
        "axes": {"channels": [4, 8], "kernel_size": [3, 5]},
        "levels": 1,
        "final_channels": 16,
    },
    "dataset": {"name": "digits"},
    "algorithm": {"weighting": "max_w", "architecture_learning_rate": 0.05},
    "training": {"epochs": EPOCHS, "batch_size": 128, "learning_rate": 0.1},
}
_TRAINING: Final[dict[str, Any]] = {
    "architecture": {
        "normal": [["sep_conv_3x3", 0], ["skip_connect", 1]],
        "normal_concat": [2],
        "reduce": [["max_pool_3x3", 0], ["max_pool_3x3", 1]],
        "reduce_concat": [2],
    },
    "network": {"channels": 2, "cells": 3, "auxiliary_weight": 0.0},
    "dataset": {"name": "digits"},
    "training": {"epochs": EPOCHS, "batch_size": 128, "schedule": {"kind": "cosine"}},
}


class Steering(StrEnum):
    """What the user of a search does to it once it has completed two epochs."""

    NOTHING = "nothing"
    """Waits for its end."""
    PAUSE = "pause"
    """Pauses it, and resumes it once it is paused."""
    CANCEL = "cancel"
    """Cancels it, and retries it once it is cancelled."""


@dataclass(frozen=True)
class Kind:
    """One kind of job of the mix.

    Attributes:
        name: For people.
        body: What is submitted, but for the name.
        job: A search or a training.
        steering: What its user does.
    """

    name: str
    body: dict[str, Any]
    job: JobKind = JobKind.SEARCH
    steering: Steering = Steering.NOTHING

    @property
    def spec(self) -> JobSpec:
        """What is submitted, parsed."""
        if self.job is JobKind.TRAINING:
            return RetrainingSpec.model_validate(self.body, strict=False)
        return SearchSpec.model_validate(self.body, strict=False)


MIX: Final = (
    Kind("cells, two seeds", _CELLS | {"trials": {"seeds": [0, 1]}}),
    Kind("HyperCuboid", _CUBOID),
    Kind("cells, paused and resumed", _CELLS, steering=Steering.PAUSE),
    Kind("training, two seeds", _TRAINING | {"trials": {"seeds": [0, 1]}}, JobKind.TRAINING),
    Kind("cells, cancelled and retried", _CELLS, steering=Steering.CANCEL),
    Kind("cells, second order", _CELLS | {"algorithm": {"order": "second"}}),
    Kind("three stacked seeds", _CELLS | {"trials": {"seeds": [0, 1, 2], "stack": 3}}),
    Kind("cells, Max-W", _CELLS | {"algorithm": {"weighting": "max_w"}}),
    Kind(
        "grid of four under ASHA",
        _CELLS
        | {
            "trials": {
                "grid": {"training.learning_rate": [0.1, 0.025, 0.005, 0.002]},
                "scheduler": {"kind": "asha", "grace_epochs": 3, "reduction_factor": 2.0},
            }
        },
    ),
)
