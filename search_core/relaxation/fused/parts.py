"""Sums that several programs have made parts of, added up in an order that never changes."""

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.fused import launch

_BLOCK: Final = 64
_AT_ONCE: Final = 16
"""Parts that a program reads at a time."""


@triton.jit
def _total(
    partial, totals, parts, count, at_once: tl.constexpr, block: tl.constexpr, acc: tl.constexpr
):  # fmt: skip
    index = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    row = tl.arange(0, at_once)[:, None]
    total = tl.zeros([at_once, block], dtype=acc)
    for start in range(0, parts, at_once):
        part = start + row
        mask = (part < parts) & (index < count)
        total += tl.load(partial + part.to(tl.int64) * count + index, mask=mask, other=0.0)
    place = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(totals + place, tl.sum(total, axis=0), mask=place < count)


def total(partial: Tensor) -> Tensor:
    """The sum over the first dimension.

    Args:
        partial: The parts, contiguous, in single or double precision.
    """
    if len(partial) == 1:
        return partial[0]
    y = partial.new_empty(partial.shape[1:])
    _total[(triton.cdiv(y.numel(), _BLOCK),)](
        partial, y, len(partial), y.numel(), _AT_ONCE, _BLOCK, launch.accumulator(partial)
    )
    return y
