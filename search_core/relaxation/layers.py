"""What an operation is made of, read from its modules.

An operation that is a `Sequential` of PyTorch's layers, of any depth, describes itself: its layers
are its layers. Another one may say which layers would compute the same (`Layered`). Any other
module is one layer that is called as it is.
"""

from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Protocol, TypeGuard

from torch import Tensor, nn

from search_core.convolutions import PixelHalves, PointwiseHalves
from search_core.layers import ACTIVATIONS
from search_core.relaxation.kernels.depthwise import KERNELS

_ACTIVATIONS = tuple(ACTIVATIONS.values())
_POOLS: dict[type[nn.Module], Callable[[nn.Module], object]] = {
    nn.MaxPool2d: attrgetter(
        "kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"
    ),
    nn.AvgPool2d: attrgetter(
        "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
    ),
}
"""What pools are told."""


class Layered(Protocol):
    """A module that says what computes the same as it does."""

    def equivalent_layers(self) -> list[nn.Module]:
        """Layers, one after the other; their parameters are the module's own."""
        ...


class Pointwise(Protocol):
    """A convolution of single pixels.

    Attributes:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
    """

    in_channels: int
    out_channels: int

    @property
    def weight(self) -> Tensor:
        """[out, in, 1, 1]."""
        ...


def read(operation: nn.Module) -> list[nn.Module]:
    """The layers of an operation in their order; none at all is the identity.

    Args:
        operation: The operation.
    """
    if isinstance(operation, nn.Identity):
        return []
    # Of a class of its own only if it is called like any other sequence.
    if isinstance(operation, nn.Sequential) and type(operation).forward is nn.Sequential.forward:
        return [layer for child in operation for layer in read(child)]
    if _is_layered(operation):
        return operation.equivalent_layers()
    return [operation]


def sharing_key(layer: nn.Module) -> Hashable | None:
    """What two layers have in common that do the same to the same input; None where none does.

    Args:
        layer: A layer. One that has parameters does what no other does.
    """
    if type(layer) in _ACTIVATIONS:
        return (type(layer), layer.extra_repr().replace("inplace=True", ""))
    if type(layer) in _POOLS:
        return (type(layer), repr(_POOLS[type(layer)](layer)))
    if type(layer) is PixelHalves:
        return PixelHalves
    if is_batch_norm(layer) and not layer.affine:
        return (type(layer), layer.eps)
    return None


def is_pointwise(layer: nn.Module) -> TypeGuard[Pointwise]:
    """Whether a layer is a convolution of single pixels, without a bias."""
    return type(layer) is PointwiseHalves or (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (1, 1)
        and layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and layer.bias is None
    )


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer has a square kernel for each channel, padded to keep the size at stride 1."""
    if type(layer) is not nn.Conv2d or layer.bias is not None or layer.padding_mode != "zeros":
        return False
    kernel, dilation = layer.kernel_size[0], layer.dilation[0]
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and kernel in KERNELS
        and layer.kernel_size == (kernel, kernel)
        and layer.dilation == (dilation, dilation)
        and layer.stride[0] == layer.stride[1]
        and layer.padding == (dilation * (kernel // 2),) * 2
    )


def is_batch_norm(layer: nn.Module) -> bool:
    """Whether a layer is a batch normalisation that keeps an exponential running average."""
    return (
        type(layer) is nn.BatchNorm2d
        and layer.momentum is not None
        and layer.running_mean is not None
    )


def _is_layered(operation: nn.Module) -> TypeGuard[Layered]:
    """Whether it says its layers, and is called like the class that says so."""
    for kind in type(operation).__mro__:
        if "equivalent_layers" in vars(kind):
            return type(operation).forward is vars(kind).get("forward")
    return False
