"""SharpSepConv, the two-stage separable convolution of sharpDARTS (arXiv 1903.09900, section 3.1).

With as many middle channels as output channels, and as many of those as inputs, it is the separable
convolution of DARTS (arXiv 1806.09055, appendix A.1), which applies a separable convolution twice.

Legend: n images, c channels, h height, w width.
"""

from torch import nn


class SharpSepConv(nn.Sequential):
    """ReLU, depthwise, 1x1, BN, ReLU, depthwise, 1x1, BN; the middle may be wider or narrower.

    The first depthwise convolution carries the stride and the dilation. Padding keeps the size at
    stride 1, and halves it rounding up at stride 2, for every odd kernel and every dilation.

    Maps x_nchw to [n, out_channels, ceil(h / stride), ceil(w / stride)].

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of both depthwise kernels in pixels; odd.
        stride: 1 or 2.
        dilation: Pixels between the taps of the first depthwise kernel.
        mid_channels: Channels between the stages; those of the output when None.
        affine: Whether the batch normalisations learn a scale and a shift.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        dilation: int = 1,
        mid_channels: int | None = None,
        affine: bool,
    ) -> None:
        mid = out_channels if mid_channels is None else mid_channels
        super().__init__(
            nn.ReLU(),
            depthwise(in_channels, kernel_size, stride, dilation),
            nn.Conv2d(in_channels, mid, 1, bias=False),
            nn.BatchNorm2d(mid, affine=affine),
            nn.ReLU(),
            depthwise(mid, kernel_size, stride=1, dilation=1),
            nn.Conv2d(mid, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


def depthwise(channels: int, kernel_size: int, stride: int, dilation: int) -> nn.Conv2d:
    """A depthwise convolution that keeps the size at stride 1 and halves it, rounding up, at 2.

    Args:
        channels: Channels of the input and of the output.
        kernel_size: Side of the kernel in pixels; odd.
        stride: 1 or 2.
        dilation: Pixels between two taps of the kernel.

    Returns:
        The convolution, without a bias.
    """
    return nn.Conv2d(
        channels,
        channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size - 1) // 2,
        dilation=dilation,
        groups=channels,
        bias=False,
    )
