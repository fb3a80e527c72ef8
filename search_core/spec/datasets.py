"""Data sets a search can name, and what has to be known of each before it is loaded."""

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from search_core.spec.base import SpecModel

DatasetName = Literal["digits"]


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set without loading it.

    Attributes:
        image_shape: Channels, height and width of one image.
        num_classes: How many classes its labels have.
        num_train: Images of the training split, which a search divides into its two halves.
        num_test: Images of the test split, which no search sees.
        summary: One sentence for a list of data sets.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    summary: str


FACTS: Final[dict[DatasetName, DatasetFacts]] = {
    "digits": DatasetFacts(
        image_shape=(1, 8, 8),
        num_classes=10,
        num_train=1437,
        num_test=360,
        summary="1,797 real 8x8 grey images of handwritten digits, bundled with scikit-learn",
    ),
}


class DatasetSpec(SpecModel):
    """The images that a search runs on."""

    name: DatasetName = "digits"
    """Which data set."""
    train_portion: float = Field(default=0.5, gt=0.05, lt=0.95)
    """Share of the training set whose loss trains the weights. The rest trains the alphas and
    measures validation accuracy; no weight ever sees it."""

    @property
    def facts(self) -> DatasetFacts:
        """Shape, classes and sizes of this data set."""
        return FACTS[self.name]
