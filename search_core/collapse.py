"""Collapse: a search that has chosen to compute nothing. Free of torch.

With too many epochs the identity tends to win every edge, because it trains fastest of all; the
derived network then has no operation left to learn with. The definition here: a search has
collapsed when every edge of the derived normal cell is `skip_connect`, or `none` where the
derivation may choose it. The reduction cell does not count, for its identities still convolve.
A path through a HyperCuboid has collapsed when every step is `skip_connect`.
"""

from search_core.genotype import Genotype, PathGenotype
from search_core.reports import SearchWarning
from search_core.spec.primitives import NONE, SKIP


def is_collapsed(genotype: Genotype) -> bool:
    """Whether the normal cell, or the path, adds nothing to what it reads.

    Args:
        genotype: A derived architecture.
    """
    if isinstance(genotype, PathGenotype):
        return all(step.operation == SKIP for step in genotype.steps)
    return all(edge.primitive in (SKIP, NONE) for edge in genotype.normal)


def warnings(
    collapsed_epochs: int, *, epoch: int, epochs: int, stop_after: int
) -> tuple[SearchWarning, ...]:
    """What a report says about a collapse.

    Args:
        collapsed_epochs: Epochs in a row that have ended collapsed, the present one included.
        epoch: The present epoch, from 1.
        epochs: Epochs of the run.
        stop_after: The spec's `stop_on_collapse_epochs`; 0 never stops.

    Returns:
        Nothing where the epoch is not collapsed; otherwise a warning, and a second one where it
        ends the run before its last epoch.
    """
    if not collapsed_epochs:
        return ()
    collapse = SearchWarning(
        "collapse",
        f"the architecture of epoch {epoch} has collapsed: all that it does is {SKIP} or {NONE}; "
        "fewer epochs or a smaller architecture_learning_rate may help",
    )
    if epoch == epochs or not stops(collapsed_epochs, stop_after):
        return (collapse,)
    stopped = SearchWarning(
        "stopped_on_collapse",
        f"stopped after epoch {epoch} of {epochs}: the architecture has been collapsed for "
        f"{collapsed_epochs} epochs in a row",
    )
    return collapse, stopped


def stops(collapsed_epochs: int, stop_after: int) -> bool:
    """Whether so many collapsed epochs in a row end a run.

    Args:
        collapsed_epochs: Epochs in a row that have ended collapsed.
        stop_after: The spec's `stop_on_collapse_epochs`; 0 never stops.
    """
    return 0 < stop_after <= collapsed_epochs
