"""Pools and normalisations without weights of images in lanes, differentiable.

Legend: n images, g groups of images, c channels, h height, w width, l lanes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from search_core.relaxation.kernels import pools as kernels
from search_core.relaxation.lanes import Lanes, numbers


def has_kernel(layer: nn.Module) -> bool:
    """Whether a layer is a pool that there is a kernel for."""
    if type(layer) is nn.MaxPool2d:
        side = layer.kernel_size
        plain = layer.dilation == 1 and not layer.return_indices
    elif type(layer) is nn.AvgPool2d:
        side = layer.kernel_size
        plain = layer.divisor_override is None
    else:
        return False
    return (
        plain
        and isinstance(side, int)
        and side % 2 == 1
        and isinstance(layer.stride, int)
        and layer.padding == side // 2
        and not layer.ceil_mode
    )


def pool(lanes: Lanes, layer: nn.MaxPool2d | nn.AvgPool2d) -> Lanes:
    """Pools images.

    Args:
        lanes: The images.
        layer: The pool; `has_kernel` is true of it.
    """
    kind = kernels.MAXIMUM
    if isinstance(layer, nn.AvgPool2d):
        kind = kernels.AVERAGE if layer.count_include_pad else kernels.INSIDE_AVERAGE
    values: Tensor = _Pool.apply(lanes.values, kind, layer.kernel_size, layer.stride)
    return Lanes(values, lanes.images)


def normalise(lanes: Lanes, eps: float) -> tuple[Lanes, Tensor, Tensor]:
    """Brings every channel to mean 0 and variance 1.

    Args:
        lanes: The images.
        eps: Added to the variance.

    Returns:
        The images, the channels' means and their biased variances.
    """
    values, statistics = _Normalise.apply(lanes.values, lanes.images, eps)
    return Lanes(values, lanes.images), *statistics.unbind()


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, kind: int, side: int, stride: int) -> Tensor:
        values = values.contiguous()
        ctx.save_for_backward(values)
        ctx.settings = kind, side, stride
        groups, channels, height, width, lanes = values.shape
        y = values.new_empty((groups, channels, -(-height // stride), -(-width // stride), lanes))
        x_numbers, y_numbers = numbers(values), numbers(y)
        shape = (groups, channels, height, width)
        kernels.pool(x_numbers, y_numbers, kind, side, stride, shape, 0, channels)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        (values,) = ctx.saved_tensors
        d_values = torch.empty_like(values)
        d, x, d_x = numbers(gradients[0].contiguous()), numbers(values), numbers(d_values)
        groups, channels, height, width, _ = values.shape
        shape = (groups, channels, height, width)
        kind, side, stride = ctx.settings
        kernels.pool_backward(d, x, d_x, kind, side, stride, shape, 0, channels)
        return d_values, None, None, None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, images: int, eps: float) -> tuple[Tensor, Tensor]:
        values = values.contiguous()
        y = torch.empty_like(values)
        statistics = values.new_empty((2, values.shape[1]))
        ctx.settings = images, eps
        ctx.save_for_backward(y, statistics)
        ctx.mark_non_differentiable(statistics)
        x_numbers, y_numbers, found = numbers(values), numbers(y), numbers(statistics)
        shape = _shape(values)
        kernels.normalise(x_numbers, y_numbers, found, eps, images, shape, 0, shape[1])
        return y, statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        y, statistics = ctx.saved_tensors
        images, eps = ctx.settings
        d_values = torch.empty_like(y)
        d, y_numbers, d_x = numbers(gradients[0].contiguous()), numbers(y), numbers(d_values)
        found, shape = numbers(statistics), _shape(y)
        kernels.normalise_backward(d, y_numbers, d_x, found, eps, images, shape, 0, shape[1])
        return d_values, None, None


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a planned relaxation has no second derivative; choose the relaxation 'plain'"
        )


def _shape(values: Tensor) -> tuple[int, int, int]:
    groups, channels, height, width, _ = values.shape
    return groups, channels, height * width
