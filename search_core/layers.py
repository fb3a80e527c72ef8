"""Builds PyTorch modules of described layers."""

import math
from typing import Final

import torch
from torch import Tensor, nn

from search_core.spec.layers import (
    Activation,
    ActivationKind,
    Convolution,
    Layer,
    Layers,
    Normalisation,
    Pool,
)

_GROUP_CHANNELS = 8

ACTIVATIONS: Final[dict[ActivationKind, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
}
"""The module of every kind of activation."""


def build(layers: Layers) -> nn.Sequential:
    """Builds an operation.

    Args:
        layers: What it is made of.

    Returns:
        A module with a child for each layer, in their order; without any, the identity.
    """
    return nn.Sequential(*(_module(layer) for layer in layers))


def _module(layer: Layer) -> nn.Module:
    if isinstance(layer, Convolution):
        return nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.dilation * (layer.kernel_size - 1) // 2,
            dilation=layer.dilation,
            groups=layer.in_channels if layer.depthwise else 1,
            bias=False,
        )
    if isinstance(layer, Normalisation):
        return _normalisation(layer)
    if isinstance(layer, Activation):
        return ACTIVATIONS[layer.kind]()
    return _pool(layer)


def _normalisation(layer: Normalisation) -> nn.Module:
    if layer.kind == "batch":
        return nn.BatchNorm2d(layer.channels, eps=layer.eps)
    groups = 1 if layer.kind == "layer" else _groups(layer.channels)
    return GroupNorm(groups, layer.channels, eps=layer.eps)


class GroupNorm(nn.GroupNorm):
    """A group normalisation that takes groups of one value as well; they become their shift.

    PyTorch's refuses one image of one pixel whose groups have one channel, even in eval mode, where
    it says nothing against a batch normalisation. Such an image may end an evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (its name in PyTorch)
        """Normalises the groups."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def _groups(channels: int) -> int:
    """Groups of at least 8 channels, as many as divide them."""
    return math.gcd(channels, max(1, channels // _GROUP_CHANNELS))


def _pool(layer: Pool) -> nn.Module:
    make = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
    return make(layer.kernel_size, stride=layer.stride, padding=layer.kernel_size // 2)
