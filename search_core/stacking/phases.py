"""Pixels a dilation apart as images of their own.

A convolution of dilation d sees, of an image, only pixels whose places differ by multiples of d:
it is d * d undilated convolutions of images that are so much smaller. PyTorch's dilated depthwise
convolutions are several times slower than undilated ones on a CPU, backward above all.

Legend: n images, c channels, h height, w width, d dilation.
"""

from torch import Tensor


def to_phases(x_nchw: Tensor, d: int) -> Tensor:
    """Pixels d apart as images, [d * d * n, c, h / d, w / d]; those of an image lie n apart."""
    n, c, h, w = x_nchw.shape
    parts = x_nchw.permute(0, 2, 3, 1).reshape(n, h // d, d, w // d, d, c)
    return parts.permute(2, 4, 0, 1, 3, 5).reshape(d * d * n, h // d, w // d, c).permute(0, 3, 1, 2)


def from_phases(x_nchw: Tensor, d: int) -> Tensor:
    """Undoes `to_phases`."""
    n, c, h, w = x_nchw.shape
    parts = x_nchw.permute(0, 2, 3, 1).reshape(d, d, n // (d * d), h, w, c)
    return parts.permute(2, 3, 0, 4, 1, 5).reshape(-1, h * d, w * d, c).permute(0, 3, 1, 2)
