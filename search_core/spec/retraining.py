"""The spec of a training from scratch: what a derived architecture is worth. Free of torch.

Not imported by `search_core.spec` itself: a genotype's validation needs the primitives' names,
which are in that package.
"""

from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from search_core import published
from search_core.errors import UnknownNameError
from search_core.genotype import CellGenotype
from search_core.spec import presets
from search_core.spec.augmentation import AugmentationSpec, check_augmentation
from search_core.spec.base import SpecModel, field_error
from search_core.spec.dataset_facts import ExtraTest
from search_core.spec.datasets import DatasetSpec, DigitsDataset
from search_core.spec.primitives import PRIMITIVES, Family
from search_core.spec.schedules import CosinePowerSchedule, Schedule
from search_core.spec.search import LabelText, ResourcesSpec, TrainingSpec, TrialsSpec
from search_core.spec.spaces import REDUCTIONS

_IMAGENET_STEM_FACTOR: Final = 8


def _known(name: str) -> str:
    try:
        return published.get(name).name
    except UnknownNameError as error:
        raise ValueError(str(error)) from None


Architecture = Annotated[
    Annotated[str, AfterValidator(_known), Tag("published")]
    | Annotated[CellGenotype, Tag("genotype")],
    Discriminator(lambda value: "published" if isinstance(value, str) else "genotype"),
]
"""The name of a published architecture, or a genotype."""


class NetworkSpec(SpecModel):
    """The network that is built of a genotype, and how it is kept from overfitting."""

    family: Family | None = None
    """Which operations the primitive names stand for; null is the family that a published
    architecture was published with, and `darts` for a genotype."""
    form: Literal["cifar", "imagenet"] = "cifar"
    """The stem: `cifar` keeps the image size, `imagenet` divides it by 8."""
    channels: int = Field(default=36, ge=1, le=1024)
    """Channels of the first cell; each reduction doubles them."""
    cells: int = Field(default=20, ge=3, le=100)
    """Depth in cells; those at a third and at two thirds reduce."""
    choke_channels: int = Field(default=32, ge=1, le=1024)
    """Middle channels of the `choke_conv` primitives."""
    auxiliary_weight: float = Field(default=0.4, ge=0, le=10)
    """Share of the auxiliary head's loss that is added to the loss; 0 builds no such head."""
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    """Chance of an operation to be left out that the last epochs reach, starting from 0."""


class NetworkTrainingSpec(TrainingSpec):
    """How the network's weights are trained."""

    epochs: int = Field(default=600, ge=1, le=10_000)
    """Passes over the training images."""
    # One image has no statistics that the auxiliary head could normalise by.
    batch_size: int = Field(default=64, ge=2, le=65_536)
    """Images per step."""
    schedule: Schedule = CosinePowerSchedule(kind="cosine_power", min_learning_rate=1e-8)
    """How the learning rate falls."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of every label that is spread evenly over all classes while training."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What convolutions and linear layers compute in; the weights are always float32. float16
    scales the loss. Accuracy is measured in float32."""


class RetrainingSpec(SpecModel):
    """All of a training from scratch. The defaults are the papers' recipe, for fewer epochs."""

    preset: str | None = None
    """Start from a training preset; other fields override its fields. See `/v1/presets`."""
    name: str = Field(default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    """For people; need not be unique."""
    architecture: Architecture
    """A published architecture's name, or a genotype. The one field without a default."""
    network: NetworkSpec = NetworkSpec()
    """The network that is built of it."""
    dataset: DatasetSpec = DigitsDataset()
    """The images. `train_portion` is a search's and stays as it is."""
    augmentation: AugmentationSpec = AugmentationSpec()
    """How training images are varied."""
    validation_portion: float = Field(default=0.1, ge=0, lt=0.95)
    """Share of the training set that is held out to choose the best epoch by; it trains nothing.
    With 0, everything trains and no epoch is chosen."""
    training: NetworkTrainingSpec = NetworkTrainingSpec()
    """How the weights are trained."""
    extra_tests: tuple[ExtraTest, ...] = Field(default=(), strict=False)
    """Further test sets that the result is measured on; `cifar10_1` goes with `cifar10`."""
    trials: TrialsSpec = TrialsSpec()
    """The independent trainings of the architecture."""
    resources: ResourcesSpec = ResourcesSpec()
    """What each occupies."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Higher goes first in the queue."""
    labels: dict[LabelText, LabelText] = Field(default_factory=dict, max_length=32)
    """For finding trainings again."""

    @property
    def genotype(self) -> CellGenotype:
        """The architecture's genotype."""
        if isinstance(self.architecture, str):
            return published.get(self.architecture).genotype
        return self.architecture

    @property
    def family(self) -> Family:
        """The operations that the primitive names stand for."""
        if self.network.family is not None:
            return self.network.family
        if isinstance(self.architecture, str):
            return published.get(self.architecture).family
        return "darts"

    @property
    def num_trained_on(self) -> int:
        """Images that train the weights."""
        return int(self.dataset.facts.num_train * (1 - self.validation_portion))

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        return presets.apply(values, "training")

    @model_validator(mode="after")
    def _check_operations(self) -> Self:
        for cell in ("normal", "reduce"):
            for index, edge in enumerate(getattr(self.genotype, cell)):
                if edge.primitive not in PRIMITIVES[self.family]:
                    raise field_error(
                        f"{cell}[{index}] is {edge.primitive!r}, which the {self.family!r} family "
                        f"lacks; choose another of: {', '.join(get_args(Family))}",
                        "network",
                        "family",
                    )
        return self

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        facts, form = self.dataset.facts, self.network.form
        _, height, width = facts.image_shape
        smallest = 2**REDUCTIONS
        if form == "imagenet":
            if self.network.channels == 1:
                raise field_error(
                    "the imagenet form halves channels in its stem; it needs at least 2",
                    "network",
                    "channels",
                )
            # Its stem rounds up.
            smallest = _IMAGENET_STEM_FACTOR * (smallest - 1) + 1
        if min(height, width) < smallest:
            raise field_error(
                f"the {form} form needs images of at least {smallest}x{smallest} pixels; those of "
                f"{self.dataset.name!r} have {height}x{width}",
                "network",
                "form",
            )
        check_augmentation(self.augmentation, self.dataset)
        return self

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        if self.dataset.train_portion != DigitsDataset().train_portion:
            raise field_error(
                "train_portion divides the images of a search; use validation_portion to hold "
                "images out of a training",
                "dataset",
                "train_portion",
            )
        if self.training.batch_size > self.num_trained_on:
            raise field_error(
                f"batch_size {self.training.batch_size} is above the {self.num_trained_on} images "
                f"of {self.dataset.name!r} that are trained on",
                "training",
                "batch_size",
            )
        return self

    @model_validator(mode="after")
    def _check_extra_tests(self) -> Self:
        for index, name in enumerate(self.extra_tests):
            if self.dataset.name != "cifar10":
                raise field_error(
                    f"{name!r} tests networks that were trained on 'cifar10'", "extra_tests", index
                )
            if name in self.extra_tests[:index]:
                raise field_error(f"{name!r} repeats", "extra_tests", index)
        return self
