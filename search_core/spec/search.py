"""The one spec of a search: request body, database value, worker configuration, client type."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from search_core.spec import presets
from search_core.spec.algorithm import AlgorithmSpec
from search_core.spec.augmentation import AugmentationSpec, check_augmentation
from search_core.spec.base import SpecModel, field_error
from search_core.spec.datasets import DatasetSpec, DigitsDataset, check_large_enough
from search_core.spec.finalists import check_finalists
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.names import Name
from search_core.spec.point_checks import check_points
from search_core.spec.resources import ResourcesSpec
from search_core.spec.schedules import CosinePowerSchedule, CosineSchedule, Schedule
from search_core.spec.spaces import REDUCTIONS, Space
from search_core.spec.trials import TrialsSpec


class TrainingSpec(SpecModel):
    """How the supernet's weights are trained."""

    epochs: int = Field(default=50, ge=1, le=10_000)
    """Passes over the training half."""
    batch_size: int = Field(default=64, ge=1, le=65_536)
    """Images per step, of each half."""
    learning_rate: float = Field(default=0.025, gt=0, le=10)
    """SGD's learning rate at its peak."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD's momentum."""
    weight_decay: float = Field(default=3e-4, ge=0, le=10)
    """SGD's weight decay."""
    gradient_clip: float = Field(default=5.0, gt=0, le=1e6)
    """Largest norm of the weights' gradient."""
    schedule: Schedule = CosineSchedule(kind="cosine")
    """How the learning rate falls."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and linear layers compute in; weights, alphas and optimizers are always
    float32. Accuracy is measured in it, and the second order's finite difference taken."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        schedule = self.schedule
        if isinstance(schedule, CosineSchedule | CosinePowerSchedule) and (
            schedule.min_learning_rate > self.learning_rate
        ):
            raise field_error(
                f"min_learning_rate {schedule.min_learning_rate:g} is above the learning_rate "
                f"{self.learning_rate:g} that it anneals from",
                "schedule",
                "min_learning_rate",
            )
        if isinstance(schedule, CosinePowerSchedule) and schedule.warmup_epochs >= self.epochs:
            raise field_error(
                f"warmup_epochs {schedule.warmup_epochs} leaves nothing of "
                f"{self.epochs} epochs to anneal",
                "schedule",
                "warmup_epochs",
            )
        return self


LabelText = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[\w.\-/]+$")]


class SearchSpec(SpecModel):
    """All of a search, fixed when it is submitted."""

    preset: str | None = None
    """Start from a preset; other fields override its fields. See `/v1/presets`."""
    name: Name = ""
    """For people; need not be unique."""
    space: Space
    """What is searched. The one field without a default."""
    dataset: DatasetSpec = DigitsDataset()
    """The images."""
    augmentation: AugmentationSpec = AugmentationSpec()
    """How training images are varied."""
    algorithm: AlgorithmSpec = AlgorithmSpec()
    """How the alphas are searched."""
    training: TrainingSpec = TrainingSpec()
    """How the weights are trained."""
    trials: TrialsSpec = TrialsSpec()
    """The independent runs."""
    resources: ResourcesSpec = ResourcesSpec()
    """What each trial occupies."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Higher goes first in the queue."""
    preemptible: bool = False
    """Whether others of a higher priority may take its place: it waits again then, with its
    checkpoints."""
    time_limit: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds that it may run, all attempts together; without a limit if null. Waiting does not
    count. What has not finished by then fails."""
    labels: dict[LabelText, LabelText] = Field(default_factory=dict, max_length=32)
    """For finding searches again."""

    @property
    def total_epochs(self) -> int:
        """Epochs of a trial: those of the search, then those of the finalists."""
        finalists = self.algorithm.finalists
        return self.training.epochs + (0 if finalists is None else finalists.total_epochs)

    @property
    def steps_are_alike(self) -> bool:
        """Whether all steps of all seeds compute the same operations."""
        skips = isinstance(self.space, HyperCuboidSpace) and bool(self.space.skip_below)
        return self.algorithm.sampling is None and not skips

    @property
    def stacks_side_by_side(self) -> bool:
        """Whether seeds that are stacked make their steps together, and not one after the other.

        Only the plain form can, in float32, and only where steps are alike.
        """
        return (
            self.algorithm.relaxation == "plain"
            and self.training.precision == "float32"
            and self.steps_are_alike
        )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        return presets.apply(values, "search")

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        warmup = self.algorithm.warmup_epochs
        if warmup >= self.training.epochs:
            raise field_error(
                f"warmup_epochs {warmup} leaves none of {self.training.epochs} epochs to search in",
                "algorithm",
                "warmup_epochs",
            )
        return self

    @model_validator(mode="after")
    def _check_data_suffices(self) -> Self:
        if isinstance(self.space, HyperCuboidSpace):
            self._check_cuboid(self.space)
        else:
            self._check_cells()
            check_large_enough(self.dataset, REDUCTIONS)
        check_augmentation(self.augmentation, self.dataset)
        facts = self.dataset.facts
        num_weight_images = int(facts.num_train * self.dataset.train_portion)
        num_alpha_images = facts.num_train - num_weight_images
        smaller = min(num_weight_images, num_alpha_images)
        if self.training.batch_size > smaller:
            raise field_error(
                f"batch_size {self.training.batch_size} is above the {smaller} images "
                f"of the smaller half of {self.dataset.name!r}",
                "training",
                "batch_size",
            )
        return self

    def _check_cuboid(self, space: HyperCuboidSpace) -> None:
        # Any image will do: one pixel is halved to one pixel. But one value has no variance.
        if self.training.batch_size == 1:
            raise field_error(
                "a hypercuboid normalises over the batch; choose a batch_size of 2 or more",
                "training",
                "batch_size",
            )
        if self.algorithm.finalists is not None:
            check_finalists(
                self.algorithm.finalists,
                num_paths=space.num_paths,
                num_train=self.dataset.facts.num_train,
                batch_size=self.training.batch_size,
                schedule=self.training.schedule,
            )

    def _check_cells(self) -> None:
        for field in ("sampling", "cost_weight", "finalists"):
            if getattr(self.algorithm, field):
                raise field_error(
                    f"{field} is for the space 'hypercuboid' only, and this is "
                    f"{self.space.kind!r}; leave it out",
                    "algorithm",
                    field,
                )

    @model_validator(mode="after")
    def _check_trials(self) -> Self:
        check_points(self)
        return self
