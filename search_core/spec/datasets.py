"""The data sets that a spec can name, told apart by `name`, and those that need no file."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from search_core.spec.base import field_error
from search_core.spec.dataset_base import (
    IN_MEMORY_LIMIT,
    BaseDataset,
    ImageSide,
    check_large_enough,
)
from search_core.spec.dataset_facts import FACTS, DatasetFacts
from search_core.spec.file_datasets import (
    Cifar10Dataset,
    Cifar100Dataset,
    DownloadableDataset,
    EmnistDataset,
    FashionMnistDataset,
    FileDataset,
    ImageFolderDataset,
    ImagenetDataset,
    MnistDataset,
    ScaledDataset,
    Stl10Dataset,
    SvhnDataset,
)

__all__ = [
    "IN_MEMORY_LIMIT",
    "BaseDataset",
    "Cifar10Dataset",
    "Cifar100Dataset",
    "DatasetSpec",
    "DigitsDataset",
    "DownloadableDataset",
    "EmnistDataset",
    "FashionMnistDataset",
    "FileDataset",
    "ImageFolderDataset",
    "ImagenetDataset",
    "MnistDataset",
    "ScaledDataset",
    "Stl10Dataset",
    "SvhnDataset",
    "SyntheticDataset",
    "check_large_enough",
]


class DigitsDataset(BaseDataset):
    """Real 8x8 handwritten digits, bundled with scikit-learn: needs no file and no download."""

    name: Literal["digits"] = "digits"
    """Which data set."""

    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation of this data set."""
        return FACTS[self.name]


class SyntheticDataset(BaseDataset):
    """Images made from a seed: each class is a texture, in any phase and of either sign.

    The mean image of every class is the same grey, so that no linear function of the pixels tells
    the classes apart, while a small convolutional network does.
    """

    size_field: ClassVar[str] = "image_shape"

    name: Literal["synthetic"]
    """Which data set."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Makes the textures and the images, independently of the trials' seeds."""
    num_train: int = Field(default=2048, ge=2, le=1_000_000)
    """Images of the training set, which a search divides into its two halves."""
    num_test: int = Field(default=512, ge=1, le=1_000_000)
    """Images of the test set."""
    image_shape: tuple[Annotated[int, Field(ge=1, le=16)], ImageSide, ImageSide] = Field(
        default=(3, 16, 16), strict=False
    )
    """Channels, height and width."""
    num_classes: int = Field(default=10, ge=2, le=1000)
    """Classes, each as often as the others."""
    noise: float = Field(default=0.5, ge=0.1, le=10)
    """Standard deviation of the noise on every pixel; the texture's is 1."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.facts.num_bytes > IN_MEMORY_LIMIT:
            raise field_error(
                f"{self.num_train + self.num_test:,} images of this image_shape take "
                f"{self.facts.num_bytes:,} bytes; at most {IN_MEMORY_LIMIT:,} are made",
                "num_train",
            )
        for field in ("num_train", "num_test"):
            if getattr(self, field) < self.num_classes:
                raise field_error(
                    f"{getattr(self, field)} images cannot show all of {self.num_classes} classes",
                    field,
                )
        return self

    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation of these images."""
        channels = self.image_shape[0]
        return DatasetFacts(
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            num_train=self.num_train,
            num_test=self.num_test,
            # By construction; see `search_core.data.synthetic`.
            mean=(0.5,) * channels,
            std=(0.2,) * channels,
            summary="images made from a seed",
        )


def _named(value: Any) -> Any:
    """A data set without a name is digits."""
    return {"name": "digits", **value} if isinstance(value, dict) else value


DatasetSpec = Annotated[
    DigitsDataset
    | SyntheticDataset
    | Cifar10Dataset
    | Cifar100Dataset
    | SvhnDataset
    | MnistDataset
    | EmnistDataset
    | FashionMnistDataset
    | Stl10Dataset
    | ImagenetDataset
    | ImageFolderDataset,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
"""A data set, told apart by `name`; `digits` where there is none."""
