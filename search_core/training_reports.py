"""What a training from scratch tells its caller: a report by epoch, and one result at its end."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class TrainingReport:
    """What an epoch measured. The test split has no part in it.

    Attributes:
        epoch: The epoch, from 1.
        epochs: Epochs of the run.
        metrics: Figures by name. Accuracies are fractions; the learning rate and, of cells, the
            drop path probability are those that the epoch was trained with; the training loss is
            the main head's, and that of validation is there where images are held out.
        best_epoch: The epoch of the best validation accuracy so far, of equals that of the lowest
            validation loss; None where no images are held out.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    best_epoch: int | None


@dataclass(frozen=True)
class TestMeasurement:
    """The weights of one epoch on test images.

    Attributes:
        epoch: The epoch whose weights were measured, from 1.
        loss: Mean cross-entropy on the data set's test split, in nats.
        accuracy: Fraction of the test split classified right.
        extra_accuracies: The same fraction on each further test set, by its name.
    """

    __test__ = False  # for pytest, which takes a class of this name for a test

    epoch: int
    loss: float
    accuracy: float
    extra_accuracies: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to. Both measurements are reported; neither chose anything.

    Attributes:
        last: The weights after the last epoch.
        best: The weights of the epoch with the best validation accuracy, of equals that with the
            lowest validation loss; None where no images were held out.
    """

    last: TestMeasurement
    best: TestMeasurement | None

    def to_plain(self) -> dict[str, Any]:
        """The result as numbers, dicts and None."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The result that `to_plain` made plain."""
        last, best = plain["last"], plain["best"]
        return cls(TestMeasurement(**last), None if best is None else TestMeasurement(**best))
