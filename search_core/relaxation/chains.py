"""How one operation is computed: what of it is shared, called as it is, or computed by stages."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from search_core.relaxation import layers


@dataclass(frozen=True)
class Stage:
    """A depthwise convolution, a pointwise one and a batch normalisation.

    A ReLU comes between two stages of an operation.

    Attributes:
        depthwise: The first, or None.
        pointwise: The second.
        norm: The last.
    """

    depthwise: nn.Conv2d | None
    pointwise: layers.Pointwise
    norm: nn.BatchNorm2d


@dataclass(frozen=True)
class Chain:
    """One operation.

    Attributes:
        shared: First layers, which other operations on the same state may have too.
        calls: What is called as it is then.
        stages: What ends the operation; none where it ends otherwise.
    """

    shared: tuple[nn.Module, ...]
    calls: tuple[nn.Module, ...]
    stages: tuple[Stage, ...]


def chain_of(operation: nn.Module) -> Chain:
    """Reads off an operation how it is computed.

    Args:
        operation: The operation.

    Returns:
        How it is computed.
    """
    rest = layers.read(operation)
    shared: list[nn.Module] = []
    while rest and layers.sharing_key(rest[0]) is not None:
        shared.append(rest.pop(0))
    for first in range(len(rest)):
        stages = _stages(rest[first:])
        if stages is not None:
            return Chain(tuple(shared), tuple(rest[:first]), stages)
    return Chain(tuple(shared), tuple(rest), ())


def _stages(rest: Sequence[nn.Module]) -> tuple[Stage, ...] | None:
    """The layers as stages; None where they are not."""
    depthwise: nn.Conv2d | None = None
    if isinstance(rest[0], nn.Conv2d) and layers.is_depthwise(rest[0]):
        depthwise, rest = rest[0], rest[1:]
    if len(rest) < 2:
        return None
    pointwise, norm, *others = rest
    if not layers.is_pointwise(pointwise):
        return None
    if not isinstance(norm, nn.BatchNorm2d) or not layers.is_batch_norm(norm):
        return None
    stage = Stage(depthwise, pointwise, norm)
    if not others:
        return (stage,)
    if type(others[0]) is not nn.ReLU or len(others) == 1:
        return None
    following = _stages(others[1:])
    return None if following is None else (stage, *following)
