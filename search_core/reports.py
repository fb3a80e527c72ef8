"""What a search run tells its caller: progress by batch, a report by epoch."""

from dataclasses import dataclass
from typing import Literal

from search_core.genotype import Genotype
from search_core.spec.algorithm import RelaxationForm


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
class SearchWarning:
    """Something about an epoch that its reader should know. It is no error.

    Attributes:
        kind: What it is, for programs: `collapse` is told of every collapsed epoch, and
            `stopped_on_collapse` besides of the epoch after which the run ended early for it;
            `finalist_diverged` of a finalist that is out; `relaxation_fell_back` once, of a plan
            that was given up (`search_core.relaxation_in_use`); `not_captured` of steps that a GPU
            could not be made to repeat by itself, which are slower and otherwise the same.
        message: The same in a sentence.
    """

    kind: Literal[
        "collapse",
        "stopped_on_collapse",
        "finalist_diverged",
        "relaxation_fell_back",
        "not_captured",
    ]
    message: str


@dataclass(frozen=True)
class EpochReport:
    """What an epoch measured.

    Attributes:
        epoch: The epoch, from 1.
        epochs: Epochs of the run, the finalists' included.
        metrics: Figures by name. Accuracies are fractions, entropies are in nats, and the learning
            rate is the one that the epoch was trained with. Of a finalist's epoch there are others;
            see `search_core.finalists`.
        genotype: The architecture that the alphas stand for after the epoch; of a finalist's epoch,
            the best finalist so far.
        relaxation: How the supernet's mixtures are computed after the epoch.
        alphas: The softmaxed alphas by group, as rows of candidates.
        warnings: What its reader should know, if anything; see `search_core.collapse`.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    genotype: Genotype
    relaxation: RelaxationForm
    alphas: dict[str, list[list[float]]]
    warnings: tuple[SearchWarning, ...] = ()
