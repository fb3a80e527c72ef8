"""Batch normalisations of many operations at once, with what follows them.

Legend: n images, k operations, c channels of one of them, r pixels of an image, t sums of
operations, m operations of a sum.
"""

from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, Final

import torch
import triton
from torch import Tensor

from search_core.relaxation.fused import launch, together
from search_core.relaxation.fused import norm_kernels as kernels
from search_core.relaxation.fused.together import Call
from search_core.relaxation.stacks import dense
from search_core.relaxation.works import Known, Normalisation, Sums

_BLOCK: Final = 512
_CHANNELS: Final = 64
_AT_ONCE: Final = 16
"""Parts of sums that a program reads at a time."""


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_nkcr: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        factor_k: Tensor | None,
        base_ntcr: Tensor | None,
        eps: float,
        rectify: bool,
        sums: Sums | None,
    ) -> tuple[Tensor, Tensor]:
        x_nkcr = dense(x_nkcr)
        scale_kc, shift_kc, factor_k = map(_contiguous, (scale_kc, shift_kc, factor_k))
        measured_2kc, deviation_kc = _measured(x_nkcr, eps)
        y = _applied(
            x_nkcr, Known(measured_2kc[0], deviation_kc), scale_kc, shift_kc, factor_k, base_ntcr,
            None, rectify, sums,
        )  # fmt: skip
        kept = (x_nkcr, measured_2kc, deviation_kc, scale_kc, shift_kc, factor_k)
        ctx.save_for_backward(*(kept if any(ctx.needs_input_grad[:4]) else ()))
        sum_of_k = None if sums is None else _tables(sums, x_nkcr.shape[1], x_nkcr.device)[1]
        ctx.settings = (rectify, sum_of_k)
        ctx.mark_non_differentiable(measured_2kc)
        ctx.set_materialize_grads(False)
        return y, measured_2kc

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        launch.refuse_second_derivative()
        rectify, sum_of_k = ctx.settings
        d_base = d_outputs[0] if ctx.needs_input_grad[4] else None
        if d_outputs[0] is None or not any(ctx.needs_input_grad[:4]):
            return None, None, None, None, d_base, None, None, None
        x_nkcr, measured_2kc, deviation_kc, scale_kc, shift_kc, factor_k = ctx.saved_tensors
        d_y = dense(d_outputs[0])
        n, k, c, r = x_nkcr.shape
        acc = launch.accumulator(x_nkcr)
        flags = (scale_kc is not None, shift_kc is not None, rectify, sum_of_k is not None)
        num_splits, length = launch.splits(k * c, n * r, _BLOCK)
        partial = measured_2kc.new_empty((num_splits, 2, k, c))
        kernels.measure_backward[k * c, num_splits](
            x_nkcr, d_y, partial, measured_2kc, deviation_kc, scale_kc, shift_kc, sum_of_k, n * r,
            length, x_nkcr.stride(0), d_y.stride(0), c, r, *flags, _BLOCK, acc,
        )  # fmt: skip
        d_x_nkcr = None
        if ctx.needs_input_grad[0]:
            d_x_nkcr = torch.empty_like(x_nkcr, memory_format=torch.contiguous_format)
            kernels.apply_backward[k * c, num_splits](
                x_nkcr, d_y, d_x_nkcr, partial, measured_2kc, deviation_kc, scale_kc, shift_kc,
                factor_k, sum_of_k, n * r, length, num_splits, x_nkcr.stride(0), d_y.stride(0), c,
                r, *flags, factor_k is not None, triton.next_power_of_2(num_splits), _BLOCK, acc,
            )  # fmt: skip
        d_affine = _affine_gradients(
            partial, scale_kc, shift_kc, factor_k, ctx.needs_input_grad[1:4]
        )
        return d_x_nkcr, *d_affine, d_base, None, None, None


def _affine_gradients(
    partial: Tensor,
    scale_kc: Tensor | None,
    shift_kc: Tensor | None,
    factor_k: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of scale, shift and factor, given parts of the sums as if there were none."""
    if not any(needs):
        return None, None, None
    splits, _, k, c = partial.shape
    d_scale_kc, d_shift_kc, d_factor_k = (
        None if each is None else torch.empty_like(each) for each in (scale_kc, shift_kc, factor_k)
    )
    kernels.of_affine[(k,)](
        partial, scale_kc, shift_kc, factor_k, d_scale_kc, d_shift_kc, d_factor_k, splits, c,
        scale_kc is not None, shift_kc is not None, factor_k is not None, _AT_ONCE, _CHANNELS,
        launch.accumulator(partial),
    )  # fmt: skip
    return d_scale_kc, d_shift_kc, d_factor_k


def _applied(
    x_nkcr: Tensor,
    statistics: Known,
    scale_kc: Tensor | None,
    shift_kc: Tensor | None,
    factor_k: Tensor | None,
    base_ntcr: Tensor | None,
    eps: float | None,
    rectify: bool,
    sums: Sums | None,
) -> Tensor:
    """Images normalised; with an epsilon by variances, else by what to multiply with."""
    n, given, c, r = x_nkcr.shape
    k = len(statistics.mean_kc)
    base = None if base_ntcr is None else dense(base_ntcr)
    members = None if sums is None else _tables(sums, k, x_nkcr.device)[0]
    dtypes = [each.dtype for each in (x_nkcr, base) if each is not None]
    shape = (n, k if sums is None else len(sums), c, r)
    y = x_nkcr.new_empty(shape, dtype=reduce(torch.promote_types, dtypes))
    size = y[0].numel()
    kernels.apply[triton.cdiv(size, _BLOCK), n](
        x_nkcr, y, base, *statistics, scale_kc, shift_kc, factor_k, members, x_nkcr.stride(0),
        0 if base is None else base.stride(0), 1 if members is None else members.shape[1], size,
        0.0 if eps is None else eps, c, r, 0 if given == k else given, eps is not None,
        scale_kc is not None, shift_kc is not None, rectify, factor_k is not None, sums is not None,
        base is not None, _BLOCK, launch.accumulator(x_nkcr),
    )  # fmt: skip
    return y


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _measured(x_nkcr: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance, and what to multiply differences to the mean with."""
    n, k, c, r = x_nkcr.shape
    exact, acc = launch.statistics_dtype(x_nkcr), launch.accumulator(x_nkcr)
    num_splits, length = launch.splits(k * c, n * r, _BLOCK)
    partial = x_nkcr.new_empty((num_splits, 2, k * c), dtype=exact)
    measured_2kc = x_nkcr.new_empty((2, k, c), dtype=exact)
    deviation_kc = x_nkcr.new_empty((k, c), dtype=exact)
    kernels.measure[k * c, num_splits](
        x_nkcr, partial, n * r, length, x_nkcr.stride(0), r, _BLOCK, acc
    )
    kernels.conclude[(triton.cdiv(k * c, _CHANNELS),)](
        x_nkcr, partial, measured_2kc, deviation_kc, k * c, num_splits, n * r, r, eps,
        _CHANNELS, acc,
    )  # fmt: skip
    return measured_2kc, deviation_kc


@cache
def _tables(sums: Sums, operations: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The operations of each sum, filled up with -1, and the sum of each operation.

    They are brought to the device once, and stay there: a captured step brings nothing.
    """
    most = max(map(len, sums))
    members_tm = [[*members, *[-1] * (most - len(members))] for members in sums]
    sum_of_k = [0] * operations
    for number, members in enumerate(sums):
        for member in members:
            sum_of_k[member] = number
    return (
        torch.tensor(members_tm, dtype=torch.int32, device=device),
        torch.tensor(sum_of_k, dtype=torch.int32, device=device),
    )


def normalise(
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
        sums: How operations are added up, if they are; each is part of one sum,
        factor_k: times a factor,
        base_ntchw: and added to what.

    Returns:
        [n, k, c, h, w], or the sums [n, t, c, h, w]; and mean and unbiased variance, [2, k, c], in
        single precision at least, through which no gradient goes.

    Raises:
        ValueError: A channel has one value only.
    """
    work = Normalisation(x_nkchw, scale_kc, shift_kc, eps, rectify, sums, factor_k, base_ntchw)
    [result] = normalise_all([work])
    return result


def normalise_all(works: Sequence[Normalisation]) -> list[tuple[Tensor, Tensor]]:
    """Several normalisations, which a captured step may compute at the same time.

    Args:
        works: They are on the same device, and do not depend on each other.

    Returns:
        What `normalise` makes of each.

    Raises:
        ValueError: See `normalise`.
    """
    with launch.device_of(works[0].x_nkchw):
        return together.run([_normalisation(each) for each in works])


def _normalisation(work: Normalisation) -> Call[tuple[Tensor, Tensor]]:
    n, _, _, height, width = work.x_nkchw.shape
    if n * height * width == 1:
        raise ValueError(
            f"expected more than 1 value per channel when training, got {tuple(work.x_nkchw.shape)}"
        )
    arguments = (
        work.x_nkchw.flatten(3),
        work.scale_kc,
        work.shift_kc,
        work.factor_k,
        None if work.base_ntchw is None else work.base_ntchw.flatten(3),
        work.eps,
        work.rectify,
        work.sums,
    )
    return Call(
        _Normalise, arguments, lambda made: (made[0].unflatten(3, (height, width)), made[1])
    )


def normalise_by(known: Known, work: Normalisation) -> Tensor:
    """Normalises by known statistics.

    Args:
        known: The statistics of each operation.
        work: As for `normalise_all`. Where there are fewer images than operations, these are read
            again from the first one on.

    Returns:
        [n, k, c, h, w], or the sums [n, t, c, h, w].

    Raises:
        RuntimeError: Gradients are being recorded, of which there are none here.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("a normalisation by known statistics has no derivative here")
    x_nkchw, scale_kc, shift_kc, eps, rectify, sums, factor_k, base_ntchw = work
    with launch.device_of(x_nkchw):
        result = _applied(
            dense(x_nkchw.flatten(3)),
            Known(known.mean_kc.contiguous(), known.variance_kc.contiguous()),
            _contiguous(scale_kc),
            _contiguous(shift_kc),
            _contiguous(factor_k),
            None if base_ntchw is None else base_ntchw.flatten(3),
            eps,
            rectify,
            sums,
        )
    return result.view(*result.shape[:3], *x_nkchw.shape[3:])
