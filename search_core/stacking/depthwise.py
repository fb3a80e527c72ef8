"""Depthwise convolutions as a CPU computes them fastest.

Depthwise, the networks of a stack are but more channels, and what a planned relaxation knows of
such convolutions holds for them too: dilated ones are undilated on pixels a dilation apart, and
wide kernels have their gradients taken in pieces.

Legend: n images, c channels of all networks, h height, w width, k taps.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_core.stacking.depthwise_form import Depthwise
from search_core.stacking.phases import from_phases, to_phases


def convolve(x_nchw: Tensor, weight_c1kk: Tensor, form: Depthwise) -> Tensor:
    """A depthwise convolution of images in the channels-last layout.

    Args:
        x_nchw: The images.
        weight_c1kk: A kernel for each channel.
        form: Stride, padding and dilation.
    """
    d = form.dilation
    if d == 1:
        return _convolved(x_nchw, weight_c1kk, form)
    undilated = Depthwise(1, form.padding // d)
    height, width = x_nchw.shape[2:]
    if form.padding % d == 0 and form.stride == d:
        # It sees the pixels of one phase only.
        seen_nchw = x_nchw[..., ::d, ::d].contiguous(memory_format=torch.channels_last)
        return _convolved(seen_nchw, weight_c1kk, undilated)
    if form.padding % d == 0 and form.stride == 1 and height % d == 0 and width % d == 0:
        return from_phases(_convolved(to_phases(x_nchw, d), weight_c1kk, undilated), d)
    return _convolved(x_nchw, weight_c1kk, form)


def _convolved(x_nchw: Tensor, weight_c1kk: Tensor, form: Depthwise) -> Tensor:
    result: Tensor = _Convolution.apply(x_nchw, weight_c1kk, form)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nchw: Tensor, weight_c1kk: Tensor, form: Depthwise) -> Tensor:
        ctx.save_for_backward(x_nchw, weight_c1kk)
        ctx.form = form
        return form.forward(x_nchw, weight_c1kk)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_nchw: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_nchw, weight_c1kk = ctx.saved_tensors
        of_input, of_weight, _ = ctx.needs_input_grad
        return (
            ctx.form.of_input(d_nchw, x_nchw, weight_c1kk) if of_input else None,
            ctx.form.of_weight(d_nchw, x_nchw, weight_c1kk) if of_weight else None,
            None,
        )
