"""Images in lanes: the layout in which kernels work.

A vector holds one pixel of one channel of as many images as a register of the processor has room
for. So every kernel works on whole registers, whatever the numbers of channels and pixels, and the
neighbour of a pixel is the neighbour of the vector. Where the number of images is no multiple of
the lanes, the last ones are empty: zeros, which no sum counts.

Legend: n images, c channels, h height, w width, g groups of images, l lanes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_core.relaxation.kernels.compiling import LANES
from search_core.relaxation.kernels.layout import into_lanes, out_of_lanes

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Lanes:
    """Images in lanes.

    Attributes:
        values: [g, c, h, w, l].
        images: How many there are.
    """

    values: Tensor
    images: int


State = Tensor | Lanes
"""Images, [n, c, h, w] or in lanes."""


def as_images(state: State) -> Tensor:
    """The images as usual, [n, c, h, w]."""
    return out_of(state) if isinstance(state, Lanes) else state


def numbers(tensor: Tensor) -> Numbers:
    """The numbers of a contiguous tensor on the CPU, as a kernel takes them; they are shared."""
    array: Numbers = tensor.detach().numpy().reshape(-1)
    return array


def into(x_nchw: Tensor) -> Lanes:
    """Images in lanes, differentiable."""
    values: Tensor = _Into.apply(x_nchw)
    return Lanes(values, x_nchw.shape[0])


def out_of(lanes: Lanes) -> Tensor:
    """Images as usual, [n, c, h, w], differentiable."""
    images_nchw: Tensor = _OutOf.apply(lanes.values, lanes.images)
    return images_nchw


def concatenated(parts: Sequence[Lanes]) -> Lanes:
    """The channels of several, one behind the other."""
    return Lanes(torch.cat([part.values for part in parts], dim=1), parts[0].images)


class _Into(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nchw: Tensor) -> Tensor:
        ctx.images = x_nchw.shape[0]
        return _gathered(x_nchw)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _scattered(gradients[0].contiguous(), ctx.images)


class _OutOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, images: int) -> Tensor:
        del ctx
        return _scattered(values, images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        del ctx
        return _gathered(gradients[0]), None


def _gathered(x_nchw: Tensor) -> Tensor:
    n, c, h, w = x_nchw.shape
    values = x_nchw.new_empty((-(-n // LANES), c, h, w, LANES))
    if not _are_channels_last(x_nchw):
        x_nchw = x_nchw.contiguous()
    lines, line, count, y_line, step = _lines(x_nchw)
    into_lanes(
        _memory(x_nchw), c * h * w, lines, line, count, numbers(values), c * h * w * LANES, y_line,
        step, n,
    )  # fmt: skip
    return values


def _scattered(values: Tensor, images: int) -> Tensor:
    _, c, h, w, _ = values.shape
    memory_format = torch.contiguous_format if c % LANES else torch.channels_last
    x_nchw = torch.empty((images, c, h, w), dtype=values.dtype, memory_format=memory_format)
    lines, line, count, y_line, step = _lines(x_nchw)
    out_of_lanes(
        numbers(values), c * h * w * LANES, y_line, step, images, _memory(x_nchw), c * h * w, lines,
        line, count,
    )  # fmt: skip
    return x_nchw


def _are_channels_last(x_nchw: Tensor) -> bool:
    """Whether they are, and best read so."""
    return x_nchw.shape[1] % LANES == 0 and x_nchw.is_contiguous(memory_format=torch.channels_last)


def _lines(x_nchw: Tensor) -> tuple[int, int, int, int, int]:
    """Lines of an image, numbers from one to the next and in one; the same of the vectors."""
    _, c, h, w = x_nchw.shape
    if _are_channels_last(x_nchw) and not x_nchw.is_contiguous():
        return h * w, c, c, LANES, h * w * LANES
    return 1, 0, c * h * w, 0, LANES


def _memory(x_nchw: Tensor) -> Numbers:
    """The numbers in the order in which they are stored."""
    if x_nchw.is_contiguous():
        return numbers(x_nchw)
    return numbers(x_nchw.permute(0, 2, 3, 1))


def constants(size: int, dtype: torch.dtype) -> tuple[Numbers, Numbers]:
    """Ones and zeros: the scale and the shift of a normalisation that learns none."""
    key = (size, dtype)
    if key not in _CONSTANTS:
        ones = torch.ones(size, dtype=dtype).numpy()
        _CONSTANTS[key] = (ones, np.zeros_like(ones))
    return _CONSTANTS[key]


_CONSTANTS: dict[tuple[int, torch.dtype], tuple[Numbers, Numbers]] = {}
