"""The trials of one search or training: their seeds, the hyperparameters that vary, who stops."""

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from search_core.spec.base import SpecModel, field_error
from search_core.spec.samples import SampleSpec

_SEED_LIMIT = 2**32
_MOST_PATHS = 16
_MOST_VALUES = 256
_LARGEST_STACK = 16

MOST_TRIALS: Final = 1000
"""Trials of one search or training; each is a row, and all of them stand in its answer."""

Path = Annotated[str, Field(min_length=1, max_length=200)]
"""A dotted path into the spec, such as `training.learning_rate`."""

_Values = Annotated[
    tuple[JsonValue, ...], Field(strict=False, min_length=1, max_length=_MOST_VALUES)
]


class AshaScheduler(SpecModel):
    """Asynchronous successive halving (arXiv 1810.05934): stops the weak trials early.

    After `grace_epochs`, and again after `reduction_factor` times as many, a trial goes on only if
    its validation accuracy is among the best `1 / reduction_factor` of those that were there before
    it.
    """

    kind: Literal["asha"]
    grace_epochs: int = Field(default=1, ge=1, le=10_000)
    """Epochs that every trial gets."""
    reduction_factor: float = Field(default=4.0, gt=1, le=100)
    """How many trials each that goes on stands for."""


class TrialsSpec(SpecModel):
    """The independent runs of one search: seeds, grid and samples are combined, each with each."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=_SEED_LIMIT)], ...] = Field(
        default=(0,), min_length=1, max_length=256, strict=False
    )
    """Each point runs once with each seed: its split, initial weights and batch order."""
    grid: dict[Path, _Values] = Field(default_factory=dict, max_length=_MOST_PATHS)
    """Values by dotted path into the spec, such as `{"training.learning_rate": [0.025, 0.1]}`; all
    combinations run."""
    sample: dict[Path, SampleSpec] = Field(default_factory=dict, max_length=_MOST_PATHS)
    """What values are drawn from, by dotted path."""
    num_samples: int = Field(default=1, ge=1, le=MOST_TRIALS)
    """How often `sample` is drawn from; each draw runs with every combination of the grid."""
    sampler: Literal["random", "tpe"] = "random"
    """Who draws: `random`, when the spec is submitted; or Optuna's `tpe` (tree-structured Parzen
    estimator), when a trial starts, from what the earlier ones came to."""
    sampler_seed: int = Field(default=0, ge=0, lt=_SEED_LIMIT)
    """The same seed draws the same samples."""
    stack: int = Field(default=1, ge=1, le=_LARGEST_STACK)
    """Searches only: so many seeds of a point train stacked in one process, on the resources of one
    trial: one after the other, an epoch at a time, each with the bits that it has alone; or, where
    `relaxation` is `plain` and all compute the same in float32, side by side, in little more time
    than one, with the result that each has alone but for rounding."""
    scheduler: AshaScheduler | None = None
    """Stops the weak trials early; null lets all run to their end."""

    @property
    def num_trials(self) -> int:
        """Trials in all."""
        num_combinations = math.prod(len(values) for values in self.grid.values())
        return len(self.seeds) * num_combinations * self.num_samples

    @property
    def is_adaptive(self) -> bool:
        """Whether what earlier trials came to decides what later ones do."""
        return self.sampler == "tpe" or self.scheduler is not None

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        for index, seed in enumerate(self.seeds):
            if seed in self.seeds[:index]:
                raise field_error(
                    f"seed {seed} must not repeat: the same seed gives the same trial",
                    "seeds",
                    index,
                )
        return self

    @model_validator(mode="after")
    def _check_stack(self) -> Self:
        if self.stack == 1:
            return self
        if self.stack > len(self.seeds):
            raise field_error(
                f"a stack of {self.stack} needs as many seeds, and there "
                + ("is 1" if len(self.seeds) == 1 else f"are {len(self.seeds)}")
                + ": add seeds, or leave stack out",
                "stack",
            )
        if self.scheduler is not None:
            raise field_error(
                f"{self.scheduler.kind} stops trials one by one, which stacked seeds cannot be: "
                "leave one of the two out",
                "stack",
            )
        return self

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        for path in self.sample:
            if path in self.grid:
                raise field_error(
                    f"{path} is in the grid as well: vary it in one of the two", "sample", path
                )
        if self.sample:
            num_values = math.prod(sample.num_values for sample in self.sample.values())
            if self.num_samples > num_values:
                raise field_error(
                    f"{self.num_samples} samples of {num_values} possible ones would repeat some: "
                    f"ask for at most {num_values}, or put the values into the grid",
                    "num_samples",
                )
            return self
        without: dict[str, Any] = {"num_samples": 1, "sampler": "random", "sampler_seed": 0}
        for name, default in without.items():
            if getattr(self, name) != default:
                raise field_error(
                    f"{name} has no effect without `sample`: name what to draw there, or leave "
                    "it out",
                    name,
                )
        return self

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if self.num_trials > MOST_TRIALS:
            raise field_error(
                f"{len(self.seeds)} seeds x {self.num_trials // len(self.seeds)} points are "
                f"{self.num_trials:,} trials; the most are {MOST_TRIALS:,}: "
                "take fewer values, samples or seeds, or submit several searches"
            )
        if self.scheduler is not None and self.num_trials == 1:
            raise field_error(
                f"{self.scheduler.kind} compares trials with each other, and there is only one: "
                "add seeds, a grid or samples, or leave the scheduler out",
                "scheduler",
            )
        return self
