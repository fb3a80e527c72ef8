"""The single-stage convolutions of the cell spaces: preprocessing, dilated, 7x1, plain.

Source: arXiv 1806.09055, section 3.1 and appendix A.1. All keep the size at stride 1 and halve it,
rounding up, at stride 2. None has a bias.

Legend: n images, c channels, h height, w width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.sharp_sep_conv import depthwise

SHARP_EPS = 1e-3
"""Epsilon of the batch normalisations that sharpDARTS adds after a resizing pool or a 7x1."""


class ReluConvNorm(nn.Sequential):
    """ReLU, 1x1 convolution, BN: brings a cell's input to the cell's channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        affine: Whether the batch normalisation learns a scale and a shift.
    """

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halves the size: two 1x1 convolutions of stride 2, one on even, one on odd pixels.

    The second convolution sees the input shifted by one pixel along both axes. Where a side is odd
    its last odd pixel lies outside, so the shifted input is padded with one zero there; at even
    sides nothing is padded.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; the first half, rounded down, sees the even pixels.
        affine: Whether the batch normalisation learns a scale and a shift.

    Raises:
        ValueError: There are fewer than 2 output channels, so that one half would be empty.
    """

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool) -> None:
        super().__init__()
        if out_channels < 2:
            raise ValueError(
                f"a factorized reduction to {out_channels} channel: it needs at least 2, one for "
                f"each half; raise the space's channels"
            )
        even = out_channels // 2
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, even, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - even, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Maps x_nchw to [n, out_channels, ceil(h / 2), ceil(w / 2)]."""
        x_nchw = self.relu(x_nchw)
        height, width = x_nchw.shape[-2:]
        # A negative pad crops: one pixel less in front, one zero more behind where a side is odd.
        shifted_nchw = functional.pad(x_nchw, (-1, width % 2, -1, height % 2))
        halves_nchw = torch.cat([self.even(x_nchw), self.odd(shifted_nchw)], dim=1)
        normed_nchw: Tensor = self.norm(halves_nchw)
        return normed_nchw

    def equivalent_layers(self) -> list[nn.Module]:
        """Layers that compute the same one after the other: one convolution of both halves."""
        return [PixelHalves(), self.relu, PointwiseHalves(self.even, self.odd), self.norm]


class PixelHalves(nn.Module):
    """Every second pixel along both axes, as channels: even ones, and behind them odd ones.

    Where a side is odd, zeros are its last odd pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, c, h, w, ...] to [n, 2 * c, ceil(h / 2), ceil(w / 2), ...]."""
        halves: Tensor = _PixelHalves.apply(x)
        return halves


class _PixelHalves(torch.autograd.Function):
    """With the gradient put together at once, instead of zeros for each half of each axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        if even.shape != odd.shape:
            missing = (even.shape[3] - odd.shape[3], even.shape[2] - odd.shape[2])
            odd = functional.pad(odd, (*(0, 0) * (x.dim() - 4), 0, missing[0], 0, missing[1]))
        return torch.cat([even, odd], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        even, odd = gradients[0].chunk(2, dim=1)
        height, width = ctx.shape[2:4]
        d_x = gradients[0].new_zeros(ctx.shape)
        d_x[:, :, ::2, ::2] = even
        d_x[:, :, 1::2, 1::2] = odd[:, :, : height // 2, : width // 2]
        return d_x


class PointwiseHalves(nn.Module):
    """Two 1x1 convolutions as one, each of a half of the channels that come in.

    Args:
        first: Of the first half; its channels come out first.
        second: Of the second half.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self._halves = (first, second)
        self.in_channels = first.in_channels + second.in_channels
        self.out_channels = first.out_channels + second.out_channels

    @property
    def weight(self) -> Tensor:
        """[out, in, 1, 1], with zeros where a channel does not see another."""
        first, second = (half.weight.flatten(1) for half in self._halves)
        joined: Tensor = torch.block_diag(first, second)  # type: ignore[no-untyped-call]
        return joined[:, :, None, None]

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The channels of both."""
        return functional.conv2d(x_nchw, self.weight)


class DilatedConv(nn.Sequential):
    """ReLU, depthwise convolution of dilation 2, 1x1, BN: DARTS' dilated separable convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in pixels; odd.
        stride: 1 or 2.
        affine: Whether the batch normalisation learns a scale and a shift.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, affine: bool
    ) -> None:
        super().__init__(
            nn.ReLU(),
            depthwise(in_channels, kernel_size, stride, dilation=2),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class Conv7x1(nn.Sequential):
    """ReLU, 1x7 convolution, 7x1 convolution, BN.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both outputs.
        stride: 1 or 2; the 1x7 strides along the width, the 7x1 along the height.
        affine: Whether the batch normalisation learns a scale and a shift.
        eps: Epsilon of the batch normalisation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, affine: bool, eps: float = 1e-5
    ) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                in_channels, out_channels, (1, 7), stride=(1, stride), padding=(0, 3), bias=False
            ),
            nn.Conv2d(
                out_channels, out_channels, (7, 1), stride=(stride, 1), padding=(3, 0), bias=False
            ),
            nn.BatchNorm2d(out_channels, eps=eps, affine=affine),
        )


class ConvNormRelu(nn.Sequential):
    """A plain convolution, BN, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in pixels; odd.
        stride: 1 or 2.
        affine: Whether the batch normalisation learns a scale and a shift.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, affine: bool
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels, affine=affine),
            nn.ReLU(),
        )
