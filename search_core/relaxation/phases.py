"""Pixels as rows, and pixels a dilation apart as images of their own.

A convolution of dilation d sees, of an image, only pixels whose places differ by multiples of d:
it is d * d undilated convolutions of images that are so much smaller. PyTorch's dilated depthwise
convolutions are several times slower than undilated ones on a CPU, backward above all.

Legend: n images, c channels, h height, w width, m pixels of all images, d dilation.
"""

import torch
from torch import Tensor


def pixels(x_nchw: Tensor) -> Tensor:
    """The pixels as rows, [m, c]; a view of a tensor in the channels-last layout."""
    n, c, h, w = x_nchw.shape
    return x_nchw.permute(0, 2, 3, 1).reshape(n * h * w, c)


def image(x_mc: Tensor, n: int, h: int, w: int) -> Tensor:
    """Rows of pixels as images, [n, c, h, w] in the channels-last layout; a view."""
    return x_mc.view(n, h, w, x_mc.shape[1]).permute(0, 3, 1, 2)


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


def of_images(x_mc: Tensor, d: int, first: int, last: int) -> Tensor:
    """The rows of some images in the order of phases, [d * d, pixels of the images' phases, c].

    Args:
        x_mc: Rows of all images in the order of phases.
        d: The dilation.
        first: The first image, as a share of the rows of a phase.
        last: Behind the last, likewise.
    """
    rows = x_mc.shape[0] // (d * d)
    return torch.unflatten(x_mc, 0, (d * d, rows))[:, first:last]
