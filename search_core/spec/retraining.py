"""The spec of a training from scratch: what a derived architecture is worth. Free of torch.

Not imported by `search_core.spec` itself: a genotype's validation needs the primitives' names,
which are in that package.
"""

from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from search_core import published
from search_core.errors import UnknownNameError
from search_core.genotype import CellGenotype, Genotype, PathGenotype, kind_of
from search_core.spec import presets
from search_core.spec.augmentation import AugmentationSpec, check_augmentation
from search_core.spec.base import SpecModel, field_error
from search_core.spec.dataset_facts import ExtraTest
from search_core.spec.datasets import DatasetSpec, DigitsDataset
from search_core.spec.names import Name
from search_core.spec.networks import CellNetworkSpec, NetworkSpec, PathNetworkSpec
from search_core.spec.point_checks import check_points
from search_core.spec.primitives import PRIMITIVES, Family
from search_core.spec.resources import ResourcesSpec
from search_core.spec.schedules import CosinePowerSchedule, Schedule
from search_core.spec.search import LabelText, TrainingSpec
from search_core.spec.spaces import REDUCTIONS
from search_core.spec.trials import TrialsSpec

_IMAGENET_STEM_FACTOR: Final = 8


def _known(name: str) -> str:
    try:
        return published.get(name).name
    except UnknownNameError as error:
        raise ValueError(str(error)) from None


def _architecture_kind(value: Any) -> str | None:
    return "published" if isinstance(value, str) else kind_of(value)


Architecture = Annotated[
    Annotated[str, AfterValidator(_known), Tag("published")]
    | Annotated[CellGenotype, Tag("cell")]
    | Annotated[PathGenotype, Tag("path")],
    Discriminator(
        _architecture_kind,
        custom_error_type="architecture_kind",
        custom_error_message="an architecture is the name of a published one, or a genotype: an "
        "object whose kind is 'cell' or 'path'",
    ),
]
"""The name of a published architecture, or a genotype."""


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
    # One more than a search has, whose loss is not scaled.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # type: ignore[assignment]
    """What convolutions and linear layers compute in; the weights are always float32. float16
    scales the loss. Accuracy is measured in float32."""


class RetrainingSpec(SpecModel):
    """All of a training from scratch. The defaults are the papers' recipe, for fewer epochs."""

    preset: str | None = None
    """Start from a training preset; other fields override its fields. See `/v1/presets`."""
    name: Name = ""
    """For people; need not be unique."""
    architecture: Architecture
    """A published architecture's name, or a genotype. The one field without a default."""
    network: NetworkSpec = CellNetworkSpec()
    """The network that is built of it. Its kind is the architecture's: of a path there is nothing
    to set, and what a preset says of cells does not count."""
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
    preemptible: bool = False
    """Whether others of a higher priority may take its place: it waits again then, with its
    checkpoints."""
    time_limit: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds that it may run, all attempts together; without a limit if null. Waiting does not
    count. What has not finished by then fails."""
    labels: dict[LabelText, LabelText] = Field(default_factory=dict, max_length=32)
    """For finding trainings again."""

    @property
    def genotype(self) -> Genotype:
        """The architecture's genotype."""
        if isinstance(self.architecture, str):
            return published.get(self.architecture).genotype
        return self.architecture

    @property
    def family(self) -> Family | None:
        """The operations that the primitive names stand for; None for a path, which has none."""
        if isinstance(self.network, PathNetworkSpec):
            return None
        if self.network.family is not None:
            return self.network.family
        if isinstance(self.architecture, str):
            return published.get(self.architecture).family
        return "darts"

    @property
    def total_epochs(self) -> int:
        """Epochs of a trial."""
        return self.training.epochs

    @property
    def num_trained_on(self) -> int:
        """Images that train the weights."""
        return int(self.dataset.facts.num_train * (1 - self.validation_portion))

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return presets.apply(_with_network_kind(values), "training")

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        genotype = self.genotype
        if self.network.kind != genotype.kind:
            raise field_error(
                f"{self.network.kind!r}, but the architecture is of kind {genotype.kind!r}; leave "
                "out the network's kind"
                + (" and the settings of cells" if genotype.kind == "path" else ""),
                "network",
                "kind",
            )
        if isinstance(genotype, CellGenotype):
            self._check_operations(genotype)
        return self

    def _check_operations(self, genotype: CellGenotype) -> None:
        family = self.family
        assert family is not None
        for cell in ("normal", "reduce"):
            for index, edge in enumerate(getattr(genotype, cell)):
                if edge.primitive not in PRIMITIVES[family]:
                    raise field_error(
                        f"{cell}[{index}] is {edge.primitive!r}, which the {family!r} family "
                        f"lacks; choose another of: {', '.join(get_args(Family))}",
                        "network",
                        "family",
                    )

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        # Any image will do for a path: one pixel is halved to one pixel.
        if isinstance(self.network, CellNetworkSpec):
            self._check_image_size(self.network.form)
        check_augmentation(self.augmentation, self.dataset)
        return self

    def _check_image_size(self, form: str) -> None:
        _, height, width = self.dataset.facts.image_shape
        smallest = 2**REDUCTIONS
        if form == "imagenet":  # its stem rounds up
            smallest = _IMAGENET_STEM_FACTOR * (smallest - 1) + 1
        if min(height, width) < smallest:
            raise field_error(
                f"the {form} form needs images of at least {smallest}x{smallest} pixels; those of "
                f"{self.dataset.name!r} have {height}x{width}",
                "network",
                "form",
            )

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

    @model_validator(mode="after")
    def _check_stack(self) -> Self:
        if self.trials.stack != 1:
            raise field_error(
                "only the seeds of a search are stacked, not those of a training; leave it out",
                "trials",
                "stack",
            )
        return self

    @model_validator(mode="after")
    def _check_trials(self) -> Self:
        check_points(self)
        return self


def _with_network_kind(values: Any) -> Any:
    """A request body whose network says its kind, if the architecture tells it.

    So a preset's network of cells is laid under one of cells only.
    """
    if not isinstance(values, dict):
        return values
    network = values.get("network", {})
    if not isinstance(network, dict) or "kind" in network:
        return values
    architecture = values.get("architecture")
    if isinstance(architecture, str) and architecture in published.names():
        architecture = published.get(architecture).genotype
    kind = "path" if kind_of(architecture) == "path" else "cell"
    return {**values, "network": {"kind": kind, **network}}
