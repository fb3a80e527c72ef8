"""What a grouped plan consists of, in PyTorch's operations; and what computes it where.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width.
"""

import os
import shutil
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

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


class Slide(NamedTuple):
    """A depthwise convolution of some operations, before a pointwise one.

    Attributes:
        x_nkchw: The operations' images side by side.
        kernels: The convolution, of the channels of all.
    """

    x_nkchw: Tensor
    kernels: Kernels


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

    def normalise(
        self,
        x_nkchw: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        *,
        eps: float,
        rectify: bool = False,
        add_up: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Normalises each channel of each operation by the batch's statistics.

        Args:
            x_nkchw: The operations' images side by side.
            scale_kc: What normalised values are multiplied with; None leaves them.
            shift_kc: What is added then.
            eps: Added to the variance.
            rectify: Whether a ReLU follows.
            add_up: Whether the operations are added up.

        Returns:
            [n, k, c, h, w], or [n, c, h, w] if they are added up; and mean and unbiased variance,
            [2, k, c], in single precision at least.

        Raises:
            ValueError: A channel has one value only.
        """
        ...


class TorchArithmetic:
    """In PyTorch's own differentiable operations, on any device."""

    def convolve(self, slides: Sequence[Slide], weight_koi: Tensor) -> Tensor:
        """See `Arithmetic`."""
        parts_nchw = [
            torch.conv2d(
                x_nkchw.flatten(1, 2),
                kernels.weight_c1kk,
                stride=kernels.stride,
                padding=kernels.dilation * (kernels.weight_c1kk.shape[2] // 2),
                dilation=kernels.dilation,
                groups=len(kernels.weight_c1kk),
            )
            for x_nkchw, kernels in slides
        ]
        joined_nchw = torch.cat(parts_nchw, dim=1) if len(parts_nchw) > 1 else parts_nchw[0]
        shape = (len(joined_nchw), len(weight_koi), -1, *joined_nchw.shape[2:])
        return self.multiply(joined_nchw.view(shape), weight_koi)

    def multiply(self, x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
        """See `Arithmetic`: one grouped convolution, or a product for each operation and image.

        With few channels in a group, libraries are slow at grouped convolutions, backward above
        all. With many, a product for each image would read more weights than pixels.
        """
        k, o, i = weight_koi.shape
        shape = (k, o, *x_nkihw.shape[3:])
        if k == 1 or min(o, i) >= WIDE:
            weight_oi11 = weight_koi.flatten(0, 1)[:, :, None, None]
            return torch.conv2d(x_nkihw.flatten(1, 2), weight_oi11, groups=k).view(-1, *shape)
        return torch.matmul(weight_koi, x_nkihw.flatten(3)).view(-1, *shape)

    def normalise(
        self,
        x_nkchw: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        *,
        eps: float,
        rectify: bool = False,
        add_up: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """See `Arithmetic`."""
        # Single precision even where the images' is a half one.
        exact = torch.promote_types(x_nkchw.dtype, torch.float32)
        measured_2kc = x_nkchw.new_zeros((2, *x_nkchw.shape[1:3]), dtype=exact)
        result_nchw = functional.batch_norm(
            x_nkchw.flatten(1, 2),
            # With a momentum of 1 the running averages become the batch's own statistics.
            measured_2kc[0].flatten(),
            measured_2kc[1].flatten(),
            None if scale_kc is None else scale_kc.flatten(),
            None if shift_kc is None else shift_kc.flatten(),
            training=True,
            momentum=1.0,
            eps=eps,
        )
        result_nkchw = result_nchw.view(x_nkchw.shape)
        if rectify:
            result_nkchw = result_nkchw.relu()
        if add_up:
            # Autocast would have a sum in single precision if it did not say what it is in.
            return result_nkchw.sum(dim=1, dtype=result_nkchw.dtype), measured_2kc
        return result_nkchw, measured_2kc


_TORCH: Final = TorchArithmetic()
_FUSED_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)


def arithmetic_for(x: Tensor) -> Arithmetic:
    """What computes best with tensors like one.

    Args:
        x: The tensor.
    """
    if x.is_cuda and x.dtype in _FUSED_DTYPES and has_compiler():
        from search_core.relaxation import fused

        return fused
    return _TORCH


@cache
def has_compiler() -> bool:
    """Whether kernels for a GPU can be compiled, by Triton and a C compiler."""
    return find_spec("triton") is not None and (
        "CC" in os.environ or any(map(shutil.which, ("gcc", "clang")))
    )
