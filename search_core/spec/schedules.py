"""Learning-rate schedules of the weights. Told apart by `kind`; the peak is the learning rate."""

from typing import Annotated, Literal

from pydantic import Field

from search_core.spec.base import SpecModel


class ConstantSchedule(SpecModel):
    """The learning rate stays as it is."""

    kind: Literal["constant"]


class CosineSchedule(SpecModel):
    """Half a cosine from the learning rate down to `min_learning_rate`, as in DARTS."""

    kind: Literal["cosine"]
    min_learning_rate: float = Field(default=1e-3, ge=0, le=10)
    """Learning rate of the last epoch."""


class CosinePowerSchedule(SpecModel):
    """Cosine power annealing (arXiv 1903.09900): stays low for longer than a cosine."""

    kind: Literal["cosine_power"]
    power: float = Field(default=2.0, ge=1, le=1000)
    """Base p of the power; 1 is a plain cosine."""
    warmup_epochs: int = Field(default=0, ge=0, le=10_000)
    """Epochs of linear warm-up at the start."""
    min_learning_rate: float = Field(default=1e-4, ge=0, le=10)
    """Learning rate of the last epoch."""


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | CosinePowerSchedule, Field(discriminator="kind")
]
"""A learning-rate schedule, told apart by `kind`."""
