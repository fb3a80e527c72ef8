"""What goes into a pass of a sum, and what comes out of it.

Legend: t terms (the features, then the chains).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """What a sum is computed of; all are contiguous.

    Attributes:
        features: In lanes.
        sources: In lanes.
        weights: Of every stage of every chain.
        same: Of each feature the source that is the same tensor; None where there is none.
    """

    features: Sequence[Tensor]
    sources: Sequence[Tensor]
    weights: Sequence[Tensor]
    same: Sequence[int | None]


@dataclass(frozen=True)
class Needs:
    """Which gradients are needed.

    Attributes:
        features: Of the features.
        sources: Of the sources.
        weights: Of the weights.
    """

    features: Sequence[bool]
    sources: Sequence[bool]
    weights: Sequence[bool]


@dataclass(frozen=True)
class Kept:
    """What a backward pass needs of a forward pass.

    Attributes:
        outputs: Of all stages.
        statistics: Mean and biased variance, then scale and shift, of each stage.
    """

    outputs: Tensor
    statistics: Tensor


@dataclass(frozen=True)
class Gradients:
    """What a backward pass finds.

    Attributes:
        multipliers: [t].
        features: None where they are not needed, or are in a source's that is the same tensor.
        sources: None where they are not needed.
        weights: Likewise.
    """

    multipliers: list[float]
    features: list[Tensor | None]
    sources: list[Tensor | None]
    weights: list[Tensor | None]
