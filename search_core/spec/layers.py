"""Operations as lists of layers: plain values that can be counted, compared and built.

The operations of a HyperCuboid describe themselves so. The same description tells what an operation
costs (`search_core.costs`), whether two settings make the same operation, and, with PyTorch, which
modules it is made of (`search_core.layers`). Free of torch.
"""

from dataclasses import dataclass
from typing import Literal

ActivationKind = Literal["relu", "leaky_relu", "relu6", "silu", "hardswish", "gelu"]
NormalisationKind = Literal["batch", "group", "layer"]
PoolKind = Literal["max", "average"]


@dataclass(frozen=True)
class Convolution:
    """A convolution without a bias, padded so that stride 1 keeps the size.

    Attributes:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel_size: Side of the kernel in pixels; odd.
        stride: 1 keeps the size, 2 halves it rounding up.
        dilation: Pixels between two taps of the kernel.
        depthwise: Whether each channel has a kernel of its own and no other.
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False


@dataclass(frozen=True)
class Normalisation:
    """A normalisation that learns a scale and a shift for each channel.

    Attributes:
        kind: Over the batch, over groups of about 8 channels of an image, or over all of them.
        channels: Channels that it normalises.
        eps: Added to the variance.
    """

    kind: NormalisationKind
    channels: int
    eps: float = 1e-5


@dataclass(frozen=True)
class Activation:
    """A function of each element."""

    kind: ActivationKind = "relu"


@dataclass(frozen=True)
class Pool:
    """A pool, padded so that stride 1 keeps the size.

    Attributes:
        kind: The maximum, or the average, for which the padding counts as zeros.
        kernel_size: Side of the window in pixels; odd.
        stride: 1 keeps the size, 2 halves it rounding up.
    """

    kind: PoolKind
    kernel_size: int
    stride: int


Layer = Convolution | Normalisation | Activation | Pool
Layers = tuple[Layer, ...]
"""What an operation does to its input, in this order; nothing at all is the identity."""
