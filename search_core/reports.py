"""What a search run tells its caller: progress by batch, a report by epoch."""

from dataclasses import dataclass

from search_core.genotype import Genotype


@dataclass(frozen=True)
class BatchProgress:
    """Where a run is, told after every batch.

    Attributes:
        epoch: The present epoch, from 1.
        batch: Batches done in it, from 1.
        batches: Batches of an epoch.
        seconds: Seconds of training in this epoch so far.
    """

    epoch: int
    batch: int
    batches: int
    seconds: float


@dataclass(frozen=True)
class EpochReport:
    """What an epoch measured.

    Attributes:
        epoch: The epoch, from 1.
        epochs: Epochs of the run.
        metrics: Figures by name. Accuracies are fractions, entropies are in nats, and the learning
            rate is the one that the epoch was trained with.
        genotype: The architecture that the alphas stand for after the epoch.
        alphas: The softmaxed alphas by group, as rows of candidates.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    genotype: Genotype
    alphas: dict[str, list[list[float]]]
