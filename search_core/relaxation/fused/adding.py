"""Sums of several tensors, each of which is read once."""

from collections.abc import Sequence
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.fused import launch

_BLOCK: Final = 512


@triton.jit
def _add(tensors, y, size, number: tl.constexpr, block: tl.constexpr, acc: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < size
    value = tl.load(tensors[0] + index, mask=inside, other=0.0).to(acc)
    for each in tl.static_range(1, number):
        value += tl.load(tensors[each] + index, mask=inside, other=0.0).to(acc)
    tl.store(y + index, value.to(y.dtype.element_ty), mask=inside)


def added(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors, in the order in which they come, rounded once.

    Args:
        tensors: One or more, of the same shape, type and device.
    """
    given = tuple(each.contiguous() for each in tensors)
    total = torch.empty_like(given[0])
    _add[(triton.cdiv(total.numel(), _BLOCK),)](
        given, total, total.numel(), len(given), _BLOCK, launch.accumulator(total)
    )
    return total
