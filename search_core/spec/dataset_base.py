"""What all data sets of a spec have in common."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Final

from pydantic import Field

from search_core.spec.base import SpecModel, field_error
from search_core.spec.dataset_facts import DatasetFacts

IN_MEMORY_LIMIT: Final = 2 * 1024**3
"""Bytes of pixels up to which a data set is kept whole on the training device."""

ImageSide = Annotated[int, Field(ge=1, le=1024)]


class BaseDataset(SpecModel, ABC):
    """The images that a search runs on."""

    size_field: ClassVar[str] = "name"
    """The field that decides how large an image is."""

    name: str
    """Which data set."""
    train_portion: float = Field(default=0.5, gt=0.05, lt=0.95)
    """Share of the training set whose loss trains the weights. The rest trains the alphas and
    measures validation accuracy; no weight ever sees it."""

    @property
    @abstractmethod
    def facts(self) -> DatasetFacts:
        """Shape, classes, sizes and normalisation of this data set."""

    @property
    def streamed(self) -> bool:
        """Whether images are read from the disk batch by batch instead of kept in memory."""
        return self.facts.num_bytes > IN_MEMORY_LIMIT


def check_large_enough(dataset: BaseDataset, num_reductions: int) -> None:
    """Refuses a data set whose images a network's reductions cannot halve.

    Args:
        dataset: The data set.
        num_reductions: How often the network halves height and width.

    Raises:
        PydanticCustomError: About the field that decides the size, for a validator of a model
            that has the data set as `dataset`.
    """
    _, height, width = dataset.facts.image_shape
    smallest = 2**num_reductions
    if min(height, width) < smallest:
        raise field_error(
            f"images of {height}x{width} pixels are too small for {num_reductions} reductions, "
            f"which need at least {smallest}x{smallest}",
            "dataset",
            dataset.size_field,
        )
