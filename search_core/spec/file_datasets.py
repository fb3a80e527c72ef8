"""Data sets that lie in a folder of the machine that trains."""

from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from search_core.spec.base import field_error
from search_core.spec.dataset_base import BaseDataset, ImageSide
from search_core.spec.dataset_facts import (
    EMNIST_FACTS,
    FACTS,
    IMAGENET_MEAN,
    IMAGENET_NUM_CLASSES,
    IMAGENET_NUM_TEST,
    IMAGENET_NUM_TRAIN,
    IMAGENET_STD,
    DatasetFacts,
    EmnistSplit,
)

Folder = Annotated[
    str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")
]


class FileDataset(BaseDataset):
    """A data set that lies in a folder of the machine that trains."""

    root: Folder | None = None
    """Its folder, absolute or relative to the training machine's data folder; null is the data
    folder itself. In it lie the files as torchvision expects them."""

    @model_validator(mode="after")
    def _check_root(self) -> Self:
        if self.root is not None and ".." in PurePosixPath(self.root).parts:
            raise field_error("root must not contain '..'; write the folder that is meant", "root")
        return self


class DownloadableDataset(FileDataset):
    """A data set that torchvision can fetch."""

    download: bool = False
    """Whether to download what is missing. Only into the training machine's data folder, so a
    root beside it must be relative. Nothing is downloaded unasked."""

    @model_validator(mode="after")
    def _check_download(self) -> Self:
        if self.download and self.root is not None and PurePosixPath(self.root).is_absolute():
            raise field_error(
                "download writes into the training machine's data folder only; "
                "leave root out or make it relative",
                "root",
            )
        return self


class _OneSizeDataset(DownloadableDataset):
    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation of this data set."""
        return FACTS[self.name]


class Cifar10Dataset(_OneSizeDataset):
    """CIFAR-10, in `cifar-10-batches-py` below the root."""

    name: Literal["cifar10"]
    """Which data set."""


class Cifar100Dataset(_OneSizeDataset):
    """CIFAR-100 with its fine classes, in `cifar-100-python` below the root."""

    name: Literal["cifar100"]
    """Which data set."""


class SvhnDataset(_OneSizeDataset):
    """Street View House Numbers, cropped, as `train_32x32.mat` and `test_32x32.mat` in the root."""

    name: Literal["svhn"]
    """Which data set."""


class MnistDataset(_OneSizeDataset):
    """MNIST, in `MNIST/raw` below the root."""

    name: Literal["mnist"]
    """Which data set."""


class FashionMnistDataset(_OneSizeDataset):
    """Fashion-MNIST, in `FashionMNIST/raw` below the root."""

    name: Literal["fashion_mnist"]
    """Which data set."""


class Stl10Dataset(_OneSizeDataset):
    """The labelled images of STL-10, in `stl10_binary` below the root."""

    name: Literal["stl10"]
    """Which data set."""


class EmnistDataset(DownloadableDataset):
    """One split of EMNIST, in `EMNIST/raw` below the root."""

    name: Literal["emnist"]
    """Which data set."""
    split: EmnistSplit = "balanced"
    """Which of its six ways to group characters into classes."""

    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation of the split."""
        return EMNIST_FACTS[self.split]


class ScaledDataset(FileDataset):
    """Photographs of any size: scaled by their shorter side, then cut square out of the middle."""

    size_field: ClassVar[str] = "image_size"

    image_size: ImageSide = 224
    """Height and width in pixels that every image is brought to."""
    in_memory: bool | None = None
    """Whether to keep all images, scaled, on the training device instead of reading them batch by
    batch. Null keeps them if their pixels take at most 2 GiB."""

    @property
    def streamed(self) -> bool:
        """Whether images are read from the disk batch by batch instead of kept in memory."""
        return super().streamed if self.in_memory is None else not self.in_memory


class ImagenetDataset(ScaledDataset):
    """ImageNet (ILSVRC 2012); its validation images are the test set.

    The root has `train` and `val` with a folder for each class, and `meta.bin`, or the original
    archives, which torchvision unpacks there.
    """

    name: Literal["imagenet"]
    """Which data set."""
    root: Folder | None = "imagenet"
    """Its folder, absolute or relative to the training machine's data folder; null is the data
    folder itself."""

    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation of this data set."""
        return DatasetFacts(
            image_shape=(3, self.image_size, self.image_size),
            num_classes=IMAGENET_NUM_CLASSES,
            num_train=IMAGENET_NUM_TRAIN,
            num_test=IMAGENET_NUM_TEST,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            summary="1,331,167 colour photographs of 1,000 kinds of things, scaled",
        )


_Fraction = Annotated[float, Field(ge=0, le=1)]
_PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class ImageFolderDataset(ScaledDataset):
    """A user's own images: `train` and `test` below the root, each with a folder for each class.

    The classes are numbered in the order of their folders' names. A spec is judged where the
    folder cannot be seen, so it says how many classes and images there are; a folder that has
    others is refused when the search starts.
    """

    name: Literal["image_folder"]
    """Which data set."""
    root: Folder
    """Its folder, absolute or relative to the training machine's data folder."""
    num_classes: int = Field(ge=2, le=100_000)
    """Folders in `train`, and the same in `test`."""
    num_train: int = Field(ge=2, le=100_000_000)
    """Images below `train`."""
    num_test: int = Field(ge=1, le=100_000_000)
    """Images below `test`."""
    mean: tuple[_Fraction, _Fraction, _Fraction] = Field(default=IMAGENET_MEAN, strict=False)
    """Mean of the pixels on a scale from 0 to 1: red, green, blue. The default is ImageNet's."""
    std: tuple[_PositiveFraction, _PositiveFraction, _PositiveFraction] = Field(
        default=IMAGENET_STD, strict=False
    )
    """Their standard deviation, likewise."""

    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation, as the spec tells them."""
        return DatasetFacts(
            image_shape=(3, self.image_size, self.image_size),
            num_classes=self.num_classes,
            num_train=self.num_train,
            num_test=self.num_test,
            mean=self.mean,
            std=self.std,
            summary="a folder of images",
        )
