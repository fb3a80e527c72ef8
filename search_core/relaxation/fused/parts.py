"""Sums that several programs have made parts of, added up in an order that never changes."""

from collections.abc import Sequence
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
    partials, totals, parts, counts,
    number: tl.constexpr, at_once: tl.constexpr, block: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """A block of one of several sums."""
    program = tl.program_id(0)
    row = tl.arange(0, at_once)[:, None]
    begin = program * 0
    for each in tl.static_range(number):
        count = counts[each]
        blocks = (count + (block - 1)) // block
        if (program >= begin) & (program < begin + blocks):
            place = (program - begin) * block + tl.arange(0, block)
            total = tl.zeros([at_once, block], dtype=acc)
            for start in range(0, parts[each], at_once):
                part = start + row
                mask = (part < parts[each]) & (place[None, :] < count)
                source = partials[each] + part.to(tl.int64) * count + place[None, :]
                total += tl.load(source, mask=mask, other=0.0)
            tl.store(totals[each] + place, tl.sum(total, axis=0), mask=place < count)
        begin += blocks


def totals(partials: Sequence[Tensor]) -> list[Tensor]:
    """The sum over the first dimension of each.

    Args:
        partials: The parts, contiguous, in single or double precision, all in the same.
    """
    several = [each for each in partials if len(each) > 1]
    made = [each.new_empty(each.shape[1:]) for each in several]
    if several:
        counts = tuple(each.numel() for each in made)
        _total[(sum(triton.cdiv(count, _BLOCK) for count in counts),)](
            tuple(several), tuple(made), tuple(map(len, several)), counts, len(several), _AT_ONCE,
            _BLOCK, launch.accumulator(several[0]),
        )  # fmt: skip
    found = iter(made)
    return [next(found) if len(each) > 1 else each[0] for each in partials]


def total(partial: Tensor) -> Tensor:
    """The sum over the first dimension.

    Args:
        partial: As for `totals`.
    """
    return totals([partial])[0]
