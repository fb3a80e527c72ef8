"""Pools and normalisations without weights of images in lanes, differentiable.

Legend: n images, g groups of images, c channels, h height, w width, l lanes.
"""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from search_core.relaxation import parallel
from search_core.relaxation.kernels import jobs, pool_jobs
from search_core.relaxation.kernels import pools as kernels
from search_core.relaxation.lanes import Lanes

_LARGEST: Final = 15
"""A pool's side: which of a window's values is the largest is kept in a byte."""


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
        and side <= _LARGEST
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
        job = _job(pool_jobs.POOL, values, y)
        job[pool_jobs.POOLED], job[pool_jobs.SIDE], job[pool_jobs.STRIDE] = ctx.settings
        _run(job, values)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        (values,) = ctx.saved_tensors
        d, d_values = gradients[0].contiguous(), torch.empty_like(values)
        job = _job(pool_jobs.POOL_BACKWARD, values, d, d_values)
        job[pool_jobs.POOLED], job[pool_jobs.SIDE], job[pool_jobs.STRIDE] = ctx.settings
        _run(job, values)
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
        job = _job(pool_jobs.NORMALISE, values, y)
        _run_normalisation(job, values, statistics, images, eps)
        return y, statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        y, statistics = ctx.saved_tensors
        images, eps = ctx.settings
        d, d_values = gradients[0].contiguous(), torch.empty_like(y)
        job = _job(pool_jobs.NORMALISE_BACKWARD, y, d, d_values)
        _run_normalisation(job, y, statistics, images, eps)
        return d_values, None, None


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a planned relaxation has no second derivative; choose the relaxation 'plain'"
        )


def _job(work: jobs.Work, values: Tensor, out: Tensor, d_values: Tensor | None = None) -> list[int]:
    """What every job says, of all channels, of windows that are one pixel apart.

    Args:
        work: What is to be done.
        values: [g, c, h, w, l], contiguous as all of them.
        out: What comes out, or its gradient.
        d_values: The gradient of the values, if that is found.
    """
    job = [0] * jobs.COLUMNS
    job[jobs.WORK] = work.address(values.element_size())
    job[pool_jobs.IN], job[pool_jobs.OUT] = values.data_ptr(), out.data_ptr()
    job[pool_jobs.D_IN] = 0 if d_values is None else d_values.data_ptr()
    job[pool_jobs.GROUPS : pool_jobs.WIDTH + 1] = values.shape[:4]
    job[pool_jobs.STRIDE] = 1
    return job


def _run_normalisation(
    job: list[int], values: Tensor, statistics: Tensor, images: int, eps: float
) -> None:
    eps_1 = np.array([eps], np.float64)
    job[pool_jobs.STATISTICS], job[pool_jobs.EPS] = statistics.data_ptr(), eps_1.ctypes.data
    job[pool_jobs.IMAGES] = images
    _run(job, values)


def _run(job: list[int], values: Tensor) -> None:
    """Does a job, some channels on each thread; each is computed the same on any."""
    channels = values.shape[1]
    count = min(torch.get_num_threads(), channels)
    table = []
    for index in range(count):
        job[pool_jobs.FIRST] = index * channels // count
        job[pool_jobs.LAST] = (index + 1) * channels // count
        table += job
    parallel.run(jobs.worker().address, table, count)
