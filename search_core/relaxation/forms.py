"""Sums of operations without their tensors: what is computed, and from what."""

from dataclasses import dataclass

from torch import Tensor

from search_core.relaxation.depthwise import Depthwise


@dataclass(frozen=True)
class StageForm:
    """A stage without its weights.

    Attributes:
        depthwise: Its depthwise convolution, or None.
        affine: Whether its normalisation learns a scale and a shift.
        eps: Of the normalisation.
    """

    depthwise: Depthwise | None
    affine: bool
    eps: float

    @property
    def num_weights(self) -> int:
        """How many tensors its weights are: depthwise, pointwise, scale, shift."""
        return (self.depthwise is not None) + 1 + 2 * self.affine


@dataclass(frozen=True)
class ChainForm:
    """An operation of stages without its weights.

    Attributes:
        source: The index of what it reads.
        target: The index of what it adds to.
        phases: How far apart the pixels are that the source holds as images; 1 is as usual.
        stages: Its stages.
    """

    source: int
    target: int
    phases: int
    stages: tuple[StageForm, ...]

    @property
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


@dataclass(frozen=True)
class Measured:
    """What a normalisation measured.

    Attributes:
        mean_o: Mean of each channel.
        variance_o: Biased variance.
        count: Values of a channel.
    """

    mean_o: Tensor
    variance_o: Tensor
    count: int
