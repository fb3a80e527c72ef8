"""What a submission is checked against, and can start from."""

from collections.abc import Mapping
from typing import Any

from dartboard.models.base import Result


class SpaceSize(Result):
    """How large a space is, counted before anything is built. None: not known beforehand."""

    positions: int | None = None
    """Operations of one path through a hypercuboid."""
    operations: int
    """Operations that are weighted against others: the number of alphas."""
    architectures: int
    """Architectures that can be derived."""
    parameters: int | None = None
    """Weights of the network that contains them all."""
    multiply_adds: int | None = None
    """Multiply-adds of that network for one image."""
    training_bytes: int | None = None
    """Memory that training it takes: an estimate from above."""


class DryRun(Result):
    """What a submission would do."""

    spec: Mapping[str, Any]
    """The full spec, with every default."""
    num_trials: int
    epochs: int
    """Epochs of the longest trial."""
    trial_epochs: int
    """Epochs of all trials together, if none is stopped early."""
    batches_per_epoch: int
    """Steps of the weights in an epoch."""
    finalist_batches_per_epoch: int | None = None
    """Steps in an epoch of a finalist; None without, and of a training."""
    cpus: int
    """CPU cores while all trials run at once; one trial's worth is enough to start."""
    gpus: float
    """GPUs while all trials run at once."""
    custom: Mapping[str, float] = {}
    """Custom resources while all trials run at once, by name."""
    size: SpaceSize | None = None
    """How large the space is; None of a training."""


class Preset(Result):
    """Settings worth starting from."""

    name: str
    summary: str
    kind: str = "search"
    """What starts from it: a search, or a training, whose architecture is still to be named."""
    spec: Mapping[str, Any]
