"""Measuring a search at the end of an epoch: what its network is worth and what its alphas say."""

from search_core import collapse
from search_core.data import Images
from search_core.evaluation import calibrate, evaluate
from search_core.genotype import Genotype
from search_core.reports import EpochReport, SearchWarning
from search_core.spec.algorithm import RelaxationForm
from search_core.static_evaluation import StaticEvaluation
from search_core.supernet import Supernet


def validate(
    network: Supernet,
    train: Images,
    validation: Images,
    *,
    most: int,
    static: StaticEvaluation | None = None,
) -> tuple[float, float]:
    """Measures what stands for the network's alphas on the alphas' half, which is not augmented.

    Args:
        network: The network. Its running statistics change where it derives another to measure.
        train: The weights' half, of which such a network takes its statistics.
        validation: The alphas' half.
        most: Images to evaluate together.
        static: Measures the network itself as a GPU likes it; None does it as anywhere.

    Returns:
        The mean cross-entropy in nats, and the fraction classified right.
    """
    derived = network.derived()
    if derived is not network:
        calibrate(derived, train)
    elif static is not None:
        return static(validation, most=most)
    return evaluate(derived, validation, most=most)


def report(
    network: Supernet,
    genotype: Genotype,
    metrics: dict[str, float],
    *,
    epoch: int,
    epochs: int,
    relaxation: RelaxationForm,
    warnings: tuple[SearchWarning, ...],
) -> EpochReport:
    """Reports an epoch, with figures about the alphas as they are now.

    Args:
        network: The network.
        genotype: What the search would derive.
        metrics: What the epoch's training and its validation measured.
        epoch: The epoch, from 1.
        epochs: Epochs of the run.
        relaxation: What the mixtures are computed by.
        warnings: What a reader should know.
    """
    weights = network.architecture_weights()
    return EpochReport(
        epoch=epoch,
        epochs=epochs,
        metrics={
            **metrics,
            **network.statistics(genotype),
            "collapsed": float(collapse.is_collapsed(genotype)),
        },
        genotype=genotype,
        relaxation=relaxation,
        alphas={name: values.tolist() for name, values in weights.items()},
        warnings=warnings,
    )
