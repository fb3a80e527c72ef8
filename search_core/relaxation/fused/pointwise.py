"""Pointwise convolutions of many operations at once: a matrix product for each.

Legend: n images, k operations, i channels that come in, o channels that go out, r pixels of an
image; values of all images in a row are counted by n r.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.grad import conv2d_weight

from search_core.precision import rounds_to_tf32
from search_core.relaxation.fused import launch, tf32
from search_core.relaxation.works import WIDE

_BLOCK: Final = 64
_OUTS: Final = (64, 128)
"""Of a program at most. It reads, and rounds, what it multiplies once for all of them."""

_BLOCK_OF_WEIGHTS: Final = 64


@triton.jit
def _product(
    x, weight, y, count, ins, outs, x_stride, y_stride,
    stride_of_operation, stride_of_out, stride_of_in, pixels: tl.constexpr,
    block_of_outs: tl.constexpr, block_of_ins: tl.constexpr, block: tl.constexpr,
    precision: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    operation = tl.program_id(1)
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < count
    n = (index // pixels).to(tl.int64)
    pixel = index % pixels
    out = tl.program_id(2) * block_of_outs + tl.arange(0, block_of_outs)
    is_out = out < outs
    column = x + n * x_stride + operation * ins * pixels + pixel
    row = weight + operation * stride_of_operation + out * stride_of_out
    total = tl.zeros([block_of_outs, block], dtype=acc)
    for start in range(0, ins, block_of_ins):
        channel = start + tl.arange(0, block_of_ins)
        is_in = channel < ins
        value = tl.load(
            column[None, :] + channel[:, None] * pixels,
            mask=is_in[:, None] & inside[None, :], other=0.0,
        )  # fmt: skip
        factor = tl.load(
            row[:, None] + channel[None, :] * stride_of_in,
            mask=is_out[:, None] & is_in[None, :], other=0.0,
        )  # fmt: skip
        if precision == "tf32":
            factor, value = tf32.rounded(factor), tf32.rounded(value)
        total = tl.dot(
            factor.to(value.dtype), value, acc=total, input_precision=precision, out_dtype=acc
        )
    target = y + n * y_stride + operation * outs * pixels + pixel
    tl.store(
        target[None, :] + out[:, None] * pixels, total.to(y.dtype.element_ty),
        mask=is_out[:, None] & inside[None, :],
    )  # fmt: skip


@triton.jit
def _product_of_weight(
    x, d_y, partial, count, length, ins, outs, x_stride, d_y_stride, pixels: tl.constexpr,
    block_of_outs: tl.constexpr, block_of_ins: tl.constexpr, block: tl.constexpr,
    precision: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """The sum over the pixels that one program has."""
    operation = tl.program_id(0)
    num_operations = tl.num_programs(0)
    split = tl.program_id(1)
    blocks_of_ins = (ins + block_of_ins - 1) // block_of_ins
    out = (tl.program_id(2) // blocks_of_ins) * block_of_outs + tl.arange(0, block_of_outs)
    channel = (tl.program_id(2) % blocks_of_ins) * block_of_ins + tl.arange(0, block_of_ins)
    is_out = out < outs
    is_in = channel < ins
    total = tl.zeros([block_of_outs, block_of_ins], dtype=acc)
    first = split * length
    for start in range(first, first + length, block):
        index = start + tl.arange(0, block)
        inside = index < count
        n = (index // pixels).to(tl.int64)
        pixel = index % pixels
        slope = tl.load(
            (d_y + n * d_y_stride + operation * outs * pixels + pixel)[None, :]
            + out[:, None] * pixels,
            mask=is_out[:, None] & inside[None, :], other=0.0,
        )  # fmt: skip
        value = tl.load(
            (x + n * x_stride + operation * ins * pixels + pixel)[None, :]
            + channel[:, None] * pixels,
            mask=is_in[:, None] & inside[None, :], other=0.0,
        )  # fmt: skip
        if precision == "tf32":
            slope, value = tf32.rounded(slope), tf32.rounded(value)
        total = tl.dot(
            slope, tl.trans(value.to(slope.dtype)), acc=total,
            input_precision=precision, out_dtype=acc,
        )  # fmt: skip
    target = partial + ((split * num_operations + operation) * outs + out[:, None]) * ins
    tl.store(target + channel[None, :], total, mask=is_out[:, None] & is_in[None, :])


def multiply(x_nkir: Tensor, weight_koi: Tensor) -> Tensor:
    """Multiplies each operation's channels with its weights, pixel by pixel.

    Args:
        x_nkir: The operations' images side by side, dense but for the first dimension.
        weight_koi: Their weights.

    Returns:
        [n, k, o, r], of the images' type.
    """
    n, k, i, r = x_nkir.shape
    o = weight_koi.shape[1]
    if _is_large(k, o, i):
        weight_oi11 = weight_koi[0, :, :, None, None].to(x_nkir.dtype)
        return torch.conv2d(x_nkir.view(n, i, r, 1), weight_oi11).view(n, 1, o, r)
    y_nkor = x_nkir.new_empty((n, k, o, r))
    outs = _block_of_outs(o)
    grid = (triton.cdiv(n * r, _BLOCK), k, triton.cdiv(o, outs))
    _product[grid](
        x_nkir, weight_koi, y_nkor, n * r, i, o, x_nkir.stride(0), y_nkor.stride(0),
        *weight_koi.stride(), r, outs, launch.power_of_two(i, 16, 32), _BLOCK,
        _precision(x_nkir), launch.accumulator(x_nkir),
    )  # fmt: skip
    return y_nkor


def weight_gradient(x_nkir: Tensor, d_y_nkor: Tensor) -> Tensor:
    """Parts of the gradient of the weights.

    Args:
        x_nkir: What was multiplied, dense but for the first dimension.
        d_y_nkor: The result's gradient, likewise.

    Returns:
        [parts, k, o, i], in single precision at least.
    """
    n, k, i, r = x_nkir.shape
    o = d_y_nkor.shape[2]
    exact = launch.statistics_dtype(x_nkir)
    if _is_large(k, o, i):
        d_weight_oi11: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            x_nkir.view(n, i, r, 1), (o, i, 1, 1), d_y_nkor.view(n, o, r, 1)
        )
        return d_weight_oi11.view(1, 1, o, i).to(exact)
    outs, ins = (launch.power_of_two(each, 16, 64) for each in (o, i))
    blocks = triton.cdiv(o, outs) * triton.cdiv(i, ins)
    num_splits, length = launch.splits(k * blocks, n * r, _BLOCK_OF_WEIGHTS)
    partial = x_nkir.new_empty((num_splits, k, o, i), dtype=exact)
    _product_of_weight[k, num_splits, blocks](
        x_nkir, d_y_nkor, partial, n * r, length, i, o, x_nkir.stride(0), d_y_nkor.stride(0),
        r, outs, ins, _BLOCK_OF_WEIGHTS, _precision(x_nkir), launch.accumulator(x_nkir),
    )  # fmt: skip
    return partial


def _block_of_outs(outs: int) -> int:
    """As many as there are, or that come in blocks of without more of them being made up."""
    small, large = _OUTS
    fits = triton.cdiv(outs, large) * large <= triton.cdiv(outs, small) * small
    return launch.power_of_two(outs, 16, large if fits else small)


def _is_large(k: int, outs: int, ins: int) -> bool:
    """Whether it is one large product, which is what libraries are made for."""
    return k == 1 and min(outs, ins) >= WIDE


def _precision(x: Tensor) -> str:
    """As a convolution of PyTorch's would have it, which these products are in place of.

    Where that is single precision, three products of matrix units make up one.
    """
    if x.dtype != torch.float32:
        return "ieee"
    return "tf32" if rounds_to_tf32(x.device) else "tf32x3"
