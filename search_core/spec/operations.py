"""The operations of a HyperCuboid by name, each as layers that an axis may then vary.

Every operation turns any number of channels into any other, keeps height and width at stride 1 and
halves them, rounding up, at stride 2. Source: arXiv 1903.09900, sections 3.1 and 3.3.
"""

from collections.abc import Callable

from search_core.spec.layers import Activation, Convolution, Layers, Normalisation, Pool, PoolKind

_KERNEL_SIZE = 3
_RESIZING_EPS = 1e-3

Operation = Callable[[int, int, int], Layers]
"""Channels that come in, channels that go out, and the stride, to layers."""

OPERATIONS: dict[str, Operation] = {}
"""Every registered operation."""


def register(name: str) -> Callable[[Operation], Operation]:
    """Registers an operation under a name.

    Args:
        name: What the axis `operation` and the steps of a path call it.

    Returns:
        A decorator that registers the function and returns it as it is.
    """

    def add(operation: Operation) -> Operation:
        assert name not in OPERATIONS, f"{name} is registered twice"
        OPERATIONS[name] = operation
        return operation

    return add


@register("sharp_sep_conv")
def sharp_sep_conv(in_channels: int, out_channels: int, stride: int) -> Layers:
    """The two-stage separable convolution; see `search_core.sharp_sep_conv`."""
    return (
        Activation(),
        Convolution(in_channels, in_channels, _KERNEL_SIZE, stride, depthwise=True),
        Convolution(in_channels, out_channels, 1),
        Normalisation("batch", out_channels),
        Activation(),
        Convolution(out_channels, out_channels, _KERNEL_SIZE, depthwise=True),
        Convolution(out_channels, out_channels, 1),
        Normalisation("batch", out_channels),
    )


@register("resizable_pool")
def resizable_pool(in_channels: int, out_channels: int, stride: int) -> Layers:
    """A max pool; a 1x1 convolution and a normalisation follow where the channels change."""
    return _pool("max", in_channels, out_channels, stride)


@register("resizable_avg_pool")
def resizable_avg_pool(in_channels: int, out_channels: int, stride: int) -> Layers:
    """The same with an average pool."""
    return _pool("average", in_channels, out_channels, stride)


@register("conv")
def conv(in_channels: int, out_channels: int, stride: int) -> Layers:
    """An activation, a full convolution and a normalisation."""
    return (
        Activation(),
        Convolution(in_channels, out_channels, _KERNEL_SIZE, stride),
        Normalisation("batch", out_channels),
    )


@register("skip_connect")
def skip_connect(in_channels: int, out_channels: int, stride: int) -> Layers:
    """The identity; a 1x1 convolution and a normalisation where channels or size change."""
    if in_channels == out_channels and stride == 1:
        return ()
    return (
        Convolution(in_channels, out_channels, 1, stride),
        Normalisation("batch", out_channels),
    )


def _pool(kind: PoolKind, in_channels: int, out_channels: int, stride: int) -> Layers:
    pool = Pool(kind, _KERNEL_SIZE, stride)
    if in_channels == out_channels:
        return (pool,)
    return (
        pool,
        Convolution(in_channels, out_channels, 1),
        Normalisation("batch", out_channels, _RESIZING_EPS),
    )
