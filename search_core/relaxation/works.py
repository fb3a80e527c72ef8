"""What a grouped plan asks to be computed, each for many operations at once.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from torch import Tensor, nn

WIDE: Final = 64
"""Channels with which a group of a convolution fills a matrix unit."""


class Kernels(NamedTuple):
    """A depthwise convolution.

    Attributes:
        weight_c1kk: A square kernel of an odd size for each channel.
        stride: Of the output.
        dilation: Pixels between two weights of a kernel.
    """

    weight_c1kk: Tensor
    stride: int
    dilation: int


class Part(NamedTuple):
    """Some of what lies side by side.

    Attributes:
        stack_nkchw: All of it.
        first: The first of them.
        length: How many there are.
    """

    stack_nkchw: Tensor
    first: int
    length: int

    @property
    def images_nkchw(self) -> Tensor:
        """The part alone."""
        if self.length == self.stack_nkchw.shape[1]:
            return self.stack_nkchw
        return self.stack_nkchw.narrow(1, self.first, self.length)


class Slide(NamedTuple):
    """A depthwise convolution of some operations, before a pointwise one.

    Attributes:
        part: The operations' images. Where there are kernels for several times as many, these are
            read again from the first one on.
        kernels: The convolution, of the channels of all operations.
    """

    part: Part
    kernels: Kernels


class Known(NamedTuple):
    """Statistics that are not the batch's own.

    Attributes:
        mean_kc: Means.
        variance_kc: Variances.
    """

    mean_kc: Tensor
    variance_kc: Tensor


Sums = tuple[tuple[int, ...], ...]
"""Which operations are added up to each of some sums; each is part of one."""


class Convolution(NamedTuple):
    """What `Arithmetic.convolve` is given."""

    slides: Sequence[Slide]
    weight_koi: Tensor


class Product(NamedTuple):
    """What `Arithmetic.multiply` is given."""

    x_nkihw: Tensor
    weight_koi: Tensor


class Reading(NamedTuple):
    """What `Arithmetic.read` is given."""

    x_nchw: Tensor
    rectify: bool
    pools: Sequence[nn.MaxPool2d | nn.AvgPool2d]


class Normalisation(NamedTuple):
    """What `Arithmetic.normalise` is given."""

    x_nkchw: Tensor
    scale_kc: Tensor | None
    shift_kc: Tensor | None
    eps: float
    rectify: bool = False
    sums: Sums | None = None
    factor_k: Tensor | None = None
    base_ntchw: Tensor | None = None
