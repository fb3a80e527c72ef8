"""What a grouped plan consists of, and what computes it where.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

import os
import shutil
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import (
    Convolution,
    Known,
    Normalisation,
    Part,
    Product,
    Reading,
    Slide,
    Sums,
)


class Arithmetic(Protocol):
    """What a grouped plan consists of, each for many operations at once."""

    def convolve(self, slides: Sequence[Slide], weight_koi: Tensor) -> Tensor:
        """Depthwise convolutions, side by side, each with a pointwise one of its own behind it.

        Args:
            slides: The depthwise ones, padded to keep the size at stride 1, whose results have the
                same size.
            weight_koi: The weights of the pointwise ones.

        Returns:
            [n, k, o, h, w].
        """
        ...

    def multiply(self, x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
        """Pointwise convolutions.

        Args:
            x_nkihw: The operations' images side by side.
            weight_koi: Their weights.

        Returns:
            [n, k, o, h, w].
        """
        ...

    def convolve_all(self, works: Sequence[Convolution | Product]) -> list[Tensor]:
        """Several convolutions and products, at the same time where that gains.

        Args:
            works: They do not depend on each other.

        Returns:
            What `convolve` and `multiply` make of each.
        """
        ...

    def mix(
        self,
        features: Sequence[Part],
        weights_tk: Tensor,
        base_ntchw: Tensor | None = None,
    ) -> Tensor:
        """Weighted sums of the same images.

        Args:
            features: The images, one of each part, all of one shape.
            weights_tk: Their weights in each sum.
            base_ntchw: What the sums are added to.

        Returns:
            [n, t, c, h, w].
        """
        ...

    def read(
        self,
        x_nchw: Tensor,
        *,
        rectify: bool,
        pools: Sequence[nn.MaxPool2d | nn.AvgPool2d] = (),
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What operations read of images.

        Args:
            x_nchw: The images.
            rectify: Whether some read them rectified.
            pools: With the same windows; `pools.has_kernel` is true of each, and none comes twice.

        Returns:
            The images themselves, to be used in place of those given; rectified; and pooled,
            [n, p, c, h, w].
        """
        ...

    def read_all(
        self, works: Sequence[Reading]
    ) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Reads several, at the same time where that gains.

        Args:
            works: They do not depend on each other.

        Returns:
            What `read` makes of each.
        """
        ...

    def normalise(
        self,
        x_nkchw: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        *,
        eps: float,
        rectify: bool = False,
        sums: Sums | None = None,
        factor_k: Tensor | None = None,
        base_ntchw: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Normalises each channel of each operation by the batch's statistics.

        Args:
            x_nkchw: The operations' images side by side.
            scale_kc: What normalised values are multiplied with; None leaves them.
            shift_kc: What is added then.
            eps: Added to the variance.
            rectify: Whether a ReLU follows.
            sums: How operations are added up, if they are,
            factor_k: each times a factor,
            base_ntchw: and to what.

        Returns:
            [n, k, c, h, w], or the sums [n, t, c, h, w]; and mean and unbiased variance, [2, k, c],
            in single precision at least.

        Raises:
            ValueError: A channel has one value only.
        """
        ...

    def normalise_all(self, works: Sequence[Normalisation]) -> list[tuple[Tensor, Tensor]]:
        """Several normalisations, at the same time where that gains.

        Args:
            works: They do not depend on each other.

        Returns:
            What `normalise` makes of each.

        Raises:
            ValueError: See `normalise`.
        """
        ...

    def normalise_by(self, known: Known, work: Normalisation) -> Tensor:
        """Normalises by known statistics, without a derivative.

        Args:
            known: The statistics of each operation.
            work: What to normalise. Where there are fewer images than operations, these are read
                again from the first one on.

        Returns:
            [n, k, c, h, w], or the sums [n, t, c, h, w].
        """
        ...


TORCH: Final = TorchArithmetic()
"""What computes wherever there are no kernels of our own."""

_FUSED_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)


def arithmetic_for(x: Tensor) -> Arithmetic:
    """What computes best with tensors like one.

    Args:
        x: The tensor.
    """
    if x.is_cuda and x.dtype in _FUSED_DTYPES and has_compiler():
        from search_core.relaxation import fused

        return fused
    return TORCH


@cache
def has_compiler() -> bool:
    """Whether kernels for a GPU can be compiled, by Triton and a C compiler."""
    return find_spec("triton") is not None and (
        "CC" in os.environ or any(map(shutil.which, ("gcc", "clang")))
    )
