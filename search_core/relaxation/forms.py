"""Sums of operations without their tensors: what is computed, and from what.

Legend: i channels that come in, o channels that go out, k taps along an axis.
"""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class StageForm:
    """A stage without its weights: a depthwise and a pointwise convolution, a normalisation.

    Attributes:
        ins: Channels that come in.
        outs: Channels that go out.
        kernel: Taps along an axis of the depthwise convolution; 0 where there is none.
        stride: Of the output.
        dilation: Pixels between two taps.
        affine: Whether its normalisation learns a scale and a shift.
        eps: Of the normalisation.
    """

    ins: int
    outs: int
    kernel: int
    stride: int
    dilation: int
    affine: bool
    eps: float

    @cached_property
    def num_weights(self) -> int:
        """How many tensors its weights are: depthwise, pointwise, scale, shift."""
        return (self.kernel > 0) + 1 + 2 * self.affine


@dataclass(frozen=True)
class ChainForm:
    """An operation of stages without its weights.

    Attributes:
        source: The index of what it reads.
        target: The index of what it adds to.
        rectified: Whether the first stage rectifies what it reads; the others do.
        stages: Its stages.
    """

    source: int
    target: int
    rectified: bool
    stages: tuple[StageForm, ...]

    @cached_property
    def num_weights(self) -> int:
        """How many tensors its weights are."""
        return sum(stage.num_weights for stage in self.stages)


@dataclass(frozen=True)
class Form:
    """A sum without its tensors.

    Attributes:
        features: The target of every feature.
        num_sources: How many sources the chains read.
        chains: The chains.
    """

    features: tuple[int, ...]
    num_sources: int
    chains: tuple[ChainForm, ...]
