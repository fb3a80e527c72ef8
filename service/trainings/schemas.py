"""What the API says about trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import WithJsonSchema

from search_core.spec import trial_points
from search_core.spec.points import point_epochs
from search_core.spec.resources import times
from search_core.spec.retraining import RetrainingSpec
from service.jobs.schemas import JobAnswer
from service.schema_base import STANDS_FOR, Answer
from store.states import JobKind

StoredTrainingSpec = Annotated[dict[str, Any], WithJsonSchema({STANDS_FOR: "RetrainingSpec"})]
"""A spec as it was stored: it was valid for the version that stored it."""


class TrainingAnswer(JobAnswer):
    """A training from scratch and everything about its life; the trials hold the results."""

    kind: ClassVar[JobKind] = JobKind.TRAINING

    spec: StoredTrainingSpec
    """The full spec, with every default."""


class TrainingPageAnswer(Answer):
    """A page of trainings."""

    items: Sequence[TrainingAnswer]
    """At most `limit` of them."""
    next_cursor: str | None
    """Pass it as `cursor` for the next page; null on the last one."""


class TrainingDryRun(Answer):
    """What a spec would train, without training it."""

    spec: StoredTrainingSpec
    """The full spec, with every default."""
    num_trials: int
    """Trials: seeds x combinations of the grid x samples."""
    epochs: int
    """Epochs of the longest trial."""
    trial_epochs: int
    """Epochs of all trials together; what a scheduler stops early, or TPE draws lower, is less."""
    images_for_weights: int
    """Images that train the weights. This and the next two are the spec's own, which points may
    vary."""
    images_held_out: int
    """Images that choose the best epoch."""
    batches_per_epoch: int
    """Steps in an epoch."""
    cpus: int
    """CPU cores while all trials run at once; one trial's worth is enough to start."""
    gpus: float
    """GPUs while all trials run at once."""
    custom: dict[str, float]
    """Custom resources while all trials run at once, by name."""

    @classmethod
    def of(cls, spec: RetrainingSpec) -> Self:
        """What can be told from the spec alone."""
        epochs = [point_epochs(spec, point) for point in trial_points(spec.trials)]
        return cls(
            spec=spec.model_dump(mode="json"),
            num_trials=len(epochs),
            epochs=max(epochs),
            trial_epochs=sum(epochs),
            images_for_weights=spec.num_trained_on,
            images_held_out=spec.dataset.facts.num_train - spec.num_trained_on,
            batches_per_epoch=spec.num_trained_on // spec.training.batch_size,
            cpus=len(epochs) * spec.resources.cpus,
            gpus=times(spec.resources.gpus, len(epochs)),
            custom={
                name: times(amount, len(epochs)) for name, amount in spec.resources.custom.items()
            },
        )
