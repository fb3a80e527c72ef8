"""Depthwise convolutions and their gradients, with wide kernels taken piece by piece.

On a CPU the gradient of a kernel more than three taps wide takes about ten times as long as that
of a kernel of three: PyTorch's library has a fast routine for the latter only. A wide kernel's
gradient is the gradients of its pieces of at most three columns, each against the images shifted
as much.

Legend: n images, c channels, h height, w width, k taps.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_FAST_WIDTH: Final = 3


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution without a bias.

    Attributes:
        stride: Of the output.
        padding: Zeros around the images.
        dilation: Pixels between two taps.
    """

    stride: int
    padding: int
    dilation: int = 1

    def forward(self, x_nchw: Tensor, weight_c1kk: Tensor) -> Tensor:
        """What comes out.

        Args:
            x_nchw: The images.
            weight_c1kk: A kernel for each channel.
        """
        return torch.conv2d(
            x_nchw,
            weight_c1kk,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=x_nchw.shape[1],
        )

    def of_input(self, d_nchw: Tensor, x_nchw: Tensor, weight_c1kk: Tensor) -> Tensor:
        """The gradient of the images.

        Args:
            d_nchw: The gradient of what comes out.
            x_nchw: The images.
            weight_c1kk: The kernels.
        """
        padding = (self.padding, self.padding)
        return self._gradient(d_nchw, x_nchw, weight_c1kk, padding, of_input=True)

    def of_weight(self, d_nchw: Tensor, x_nchw: Tensor, weight_c1kk: Tensor) -> Tensor:
        """The gradient of the kernels.

        Args:
            d_nchw: The gradient of what comes out.
            x_nchw: The images.
            weight_c1kk: The kernels.
        """
        width = weight_c1kk.shape[3]
        if width <= _FAST_WIDTH or self.dilation > 1 or x_nchw.device.type != "cpu":
            padding = (self.padding, self.padding)
            return self._gradient(d_nchw, x_nchw, weight_c1kk, padding, of_input=False)
        padded_nchw = functional.pad(x_nchw, (self.padding, self.padding))
        span = (d_nchw.shape[3] - 1) * self.stride
        pieces = []
        for first in range(0, width, _FAST_WIDTH):
            piece = weight_c1kk[..., first : first + _FAST_WIDTH].contiguous()
            seen_nchw = padded_nchw[..., first : first + span + piece.shape[3]]
            seen_nchw = seen_nchw.contiguous(memory_format=torch.channels_last)
            padding = (self.padding, 0)
            pieces.append(self._gradient(d_nchw, seen_nchw, piece, padding, of_input=False))
        return torch.cat(pieces, dim=3)

    def _gradient(
        self,
        d_nchw: Tensor,
        x_nchw: Tensor,
        weight_c1kk: Tensor,
        padding: tuple[int, int],
        *,
        of_input: bool,
    ) -> Tensor:
        found = torch.ops.aten.convolution_backward(
            d_nchw,
            x_nchw,
            weight_c1kk,
            [0],
            [self.stride] * 2,
            padding,
            [self.dilation] * 2,
            False,
            [0, 0],
            x_nchw.shape[1],
            [of_input, not of_input, False],
        )
        result: Tensor = found[0 if of_input else 1]
        return result
