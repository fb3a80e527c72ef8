"""The candidate operations of an edge, by operation family and name.

The names are those of `search_core.spec.primitives`. A primitive keeps height and width at stride 1
and halves them, rounding up, at stride 2. Sources: arXiv 1806.09055, section 3.1 (family `darts`),
arXiv 1903.09900, section 3 (family `sharp`).

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from search_core.convolutions import (
    SHARP_EPS,
    Conv7x1,
    ConvNormRelu,
    DilatedConv,
    FactorizedReduce,
    ReluConvNorm,
)
from search_core.errors import UnknownNameError
from search_core.sharp_sep_conv import SharpSepConv
from search_core.spec.primitives import Family

_FLOOD_FACTOR = 4


@dataclass(frozen=True)
class Slot:
    """Where a primitive is put.

    Attributes:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: 1 keeps the size, 2 halves it rounding up.
        affine: Whether batch normalisations learn a scale and a shift; not during a search.
        choke_channels: Middle channels of the `choke_conv` primitives.
    """

    in_channels: int
    out_channels: int
    stride: int
    affine: bool
    choke_channels: int = 32


Factory = Callable[[Slot], nn.Module]

REGISTRY: dict[tuple[Family, str], Factory] = {}
"""Every primitive: (family, name) to the function that builds it for a slot."""


def register(name: str, *families: Family) -> Callable[[Factory], Factory]:
    """Registers a factory under a name in each of the families.

    Args:
        name: The primitive's name, as in `search_core.spec.primitives`.
        *families: The families in which the name means this operation.

    Returns:
        A decorator that registers the factory and returns it as it is.
    """

    def add(factory: Factory) -> Factory:
        for family in families:
            assert (family, name) not in REGISTRY, f"{name} is registered twice in {family}"
            REGISTRY[family, name] = factory
        return factory

    return add


def build(family: Family, name: str, slot: Slot) -> nn.Module:
    """Builds one primitive.

    Args:
        family: Which operation the name stands for.
        name: The primitive's name.
        slot: Where it is put.

    Returns:
        A module from [n, in_channels, h, w] to
        [n, out_channels, ceil(h / stride), ceil(w / stride)].

    Raises:
        UnknownNameError: The family has no such primitive.
        ValueError: The primitive cannot be put into that slot.
    """
    factory = REGISTRY.get((family, name))
    if factory is None:
        known = ", ".join(
            known_name for known_family, known_name in REGISTRY if known_family == family
        )
        raise UnknownNameError(f"no primitive {name!r} in family {family!r}; known are: {known}")
    return factory(slot)


class Zero(nn.Module):
    """Contributes nothing. Networks skip it instead of adding its zeros.

    Args:
        out_channels: Channels of the output.
        stride: 1 or 2.
    """

    def __init__(self, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Zeros of the output's shape."""
        n, _, h, w = x_nchw.shape
        return x_nchw.new_zeros((n, self.out_channels, -(-h // self.stride), -(-w // self.stride)))


@register("none", "darts", "sharp")
def _none(slot: Slot) -> nn.Module:
    return Zero(slot.out_channels, slot.stride)


@register("skip_connect", "darts", "sharp")
def _skip_connect(slot: Slot) -> nn.Module:
    if slot.stride == 2:
        return FactorizedReduce(slot.in_channels, slot.out_channels, affine=slot.affine)
    if slot.in_channels == slot.out_channels:
        return nn.Identity()
    return ReluConvNorm(slot.in_channels, slot.out_channels, affine=slot.affine)


@register("max_pool_3x3", "darts")
def _max_pool(slot: Slot) -> nn.Module:
    _check_channels_stay("max_pool_3x3", slot)
    return nn.MaxPool2d(3, stride=slot.stride, padding=1)


@register("avg_pool_3x3", "darts")
def _avg_pool(slot: Slot) -> nn.Module:
    _check_channels_stay("avg_pool_3x3", slot)
    return nn.AvgPool2d(3, stride=slot.stride, padding=1, count_include_pad=False)


@register("max_pool_3x3", "sharp")
def _resizable_max_pool(slot: Slot) -> nn.Module:
    return _resizing(nn.MaxPool2d(3, stride=slot.stride, padding=1), slot)


@register("avg_pool_3x3", "sharp")
def _resizable_avg_pool(slot: Slot) -> nn.Module:
    return _resizing(nn.AvgPool2d(3, stride=slot.stride, padding=1), slot)


@register("conv_7x1_1x7", "darts")
def _conv_7x1(slot: Slot) -> nn.Module:
    return Conv7x1(slot.in_channels, slot.out_channels, slot.stride, affine=slot.affine)


@register("conv_7x1_1x7", "sharp")
def _sharp_conv_7x1(slot: Slot) -> nn.Module:
    return Conv7x1(
        slot.in_channels, slot.out_channels, slot.stride, affine=slot.affine, eps=SHARP_EPS
    )


def _resizing(pool: nn.Module, slot: Slot) -> nn.Module:
    if slot.in_channels == slot.out_channels:
        return pool
    return nn.Sequential(
        pool,
        nn.Conv2d(slot.in_channels, slot.out_channels, 1, bias=False),
        nn.BatchNorm2d(slot.out_channels, eps=SHARP_EPS, affine=slot.affine),
    )


def _check_channels_stay(name: str, slot: Slot) -> None:
    if slot.in_channels != slot.out_channels:
        raise ValueError(
            f"{name} of the 'darts' family cannot turn {slot.in_channels} channels into "
            f"{slot.out_channels}; the 'sharp' family's can"
        )


def _sharp_sep_conv(slot: Slot, kernel_size: int, dilation: int, mid: int | None) -> nn.Module:
    return SharpSepConv(
        slot.in_channels,
        slot.out_channels,
        kernel_size,
        slot.stride,
        dilation=dilation,
        mid_channels=mid,
        affine=slot.affine,
    )


def _register_kernel(k: int) -> None:
    """Registers the separable and plain convolutions with k x k kernels."""

    @register(f"sep_conv_{k}x{k}", "darts", "sharp")
    def _sep(slot: Slot) -> nn.Module:
        return _sharp_sep_conv(slot, k, dilation=1, mid=None)

    @register(f"nor_conv_{k}x{k}", "darts")
    def _nor(slot: Slot) -> nn.Module:
        return ConvNormRelu(slot.in_channels, slot.out_channels, k, slot.stride, affine=slot.affine)


def _register_dilated_kernel(k: int) -> None:
    """Registers what comes dilated or with another number of middle channels, for k x k kernels."""

    @register(f"dil_conv_{k}x{k}", "darts")
    def _dil(slot: Slot) -> nn.Module:
        return DilatedConv(slot.in_channels, slot.out_channels, k, slot.stride, affine=slot.affine)

    @register(f"dil_conv_{k}x{k}", "sharp")
    def _sharp_dil(slot: Slot) -> nn.Module:
        return _sharp_sep_conv(slot, k, dilation=2, mid=None)

    for prefix, dilation in (("", 1), ("dil_", 2)):

        @register(f"{prefix}flood_conv_{k}x{k}", "sharp")
        def _flood(slot: Slot, dilation: int = dilation) -> nn.Module:
            return _sharp_sep_conv(slot, k, dilation, mid=_FLOOD_FACTOR * slot.out_channels)

        @register(f"{prefix}choke_conv_{k}x{k}", "sharp")
        def _choke(slot: Slot, dilation: int = dilation) -> nn.Module:
            return _sharp_sep_conv(slot, k, dilation, mid=slot.choke_channels)


for _kernel_size in (3, 5, 7):
    _register_kernel(_kernel_size)
for _kernel_size in (3, 5):
    _register_dilated_kernel(_kernel_size)
