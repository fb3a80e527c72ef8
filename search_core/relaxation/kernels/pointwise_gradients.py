"""Gradients of pointwise convolutions' weights, row by row.

Legend: i channels that come in, o channels that go out.
"""

from collections.abc import Callable
from typing import Any, Final

from numba.core import cgutils, types

from search_core.relaxation.kernels.compiling import LANES, compiled, intrinsic
from search_core.relaxation.kernels.vectors import (
    constant,
    multiply_add,
    put,
    repeated,
    scalar_at,
    vector_at,
    vector_type,
    zeros,
)


def _pairs(outs: int, ins: int, *, turned: bool) -> Callable[..., Any]:
    """Adds sums of products of some pairs of channels, all in registers.

    Args:
        outs: Channels of the gradient.
        ins: Vectors of what was read: of a channel each, or of as many channels as there are lanes.
        turned: Whether these are channels. Then each number of the gradient meets all of them;
            else each vector of it meets the vector of the same images.
    """

    @intrinsic
    def add_sums(
        _context: Any, d: Any, d_at: Any, d_o: Any, x: Any, x_at: Any, x_i: Any, count: Any,
        found: Any, at: Any, found_o: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            d_kind, x_kind, found_kind = (signature.args[each] for each in (0, 3, 7))
            d, d_at, d_o, x, x_at, x_i, count, found, at, found_o = args
            kind = vector_type(context, x_kind.dtype)
            totals = [[cgutils.alloca_once(builder, kind) for _ in range(ins)] for _ in range(outs)]
            # A row is summed up by itself, lest digits are lost.
            for each in (each for totals_of in totals for each in totals_of):
                builder.store(zeros(context, x_kind.dtype), each)
            reads = [builder.add(x_at, builder.mul(x_i, constant(each))) for each in range(ins)]
            starts = [builder.add(d_at, builder.mul(d_o, constant(out))) for out in range(outs)]
            with cgutils.for_range(builder, count) as loop:
                shift = builder.mul(loop.index, constant(LANES))
                values = [
                    vector_at(context, builder, x_kind, x, builder.add(read, shift))
                    for read in reads
                ]
                for start, totals_of in zip(starts, totals, strict=True):
                    if turned:
                        place = builder.add(start, loop.index)
                        gradient = repeated(builder, scalar_at(context, builder, d_kind, d, place))
                    else:
                        place = builder.add(start, shift)
                        gradient = vector_at(context, builder, d_kind, d, place)
                    for value, each in zip(values, totals_of, strict=True):
                        value = multiply_add(builder, gradient, value, builder.load(each))
                        builder.store(value, each)
            for out, totals_of in enumerate(totals):
                start = builder.add(at, builder.mul(found_o, constant(out)))
                for number, each in enumerate(totals_of):
                    place = builder.add(start, constant(number * LANES))
                    before = vector_at(context, builder, found_kind, found, place)
                    sum_ = builder.fadd(before, builder.load(each))
                    put(context, builder, found_kind, found, place, sum_)
            return context.get_dummy_value()

        number = types.int64
        return types.void(
            d, number, number, x, number, number, number, found, number, number
        ), generate

    return add_sums


_outer_4_4, _outer_1_4 = _pairs(4, 4, turned=False), _pairs(1, 4, turned=False)
_outer_4_1, _outer_1_1 = _pairs(4, 1, turned=False), _pairs(1, 1, turned=False)
_BLOCKS: Final = 4
_turned_4_4 = _pairs(4, _BLOCKS, turned=True)


@compiled
def add_outer(
    d: Any, d_at: int, d_o: int, outs: int, x: Any, x_at: int, x_i: int, ins: int, count: int,
    found: Any, at: int,
) -> None:  # fmt: skip
    """Adds what a row says of the weights' gradient.

    Args:
        d: The gradient of the row; pixels follow each other.
        d_at: Where it begins.
        d_o: From a channel to the next.
        outs: Its channels.
        x: What the convolution read; pixels follow each other.
        x_at: Where it begins.
        x_i: From a channel to the next.
        ins: Its channels.
        count: Pixels.
        found: The gradient, a vector for each weight, [o, i].
        at: Where it begins.
    """
    found_o = ins * LANES
    out = 0
    while out + 4 <= outs:
        into = 0
        while into + 4 <= ins:
            _outer_4_4(
                d, d_at + out * d_o, d_o, x, x_at + into * x_i, x_i, count,
                found, at + out * found_o + into * LANES, found_o,
            )  # fmt: skip
            into += 4
        while into < ins:
            _outer_4_1(
                d, d_at + out * d_o, d_o, x, x_at + into * x_i, x_i, count,
                found, at + out * found_o + into * LANES, found_o,
            )  # fmt: skip
            into += 1
        out += 4
    while out < outs:
        into = 0
        while into + 4 <= ins:
            _outer_1_4(
                d, d_at + out * d_o, d_o, x, x_at + into * x_i, x_i, count,
                found, at + out * found_o + into * LANES, found_o,
            )  # fmt: skip
            into += 4
        while into < ins:
            _outer_1_1(
                d, d_at + out * d_o, d_o, x, x_at + into * x_i, x_i, count,
                found, at + out * found_o + into * LANES, found_o,
            )  # fmt: skip
            into += 1
        out += 1


@compiled
def is_wide(outs: int, ins: int) -> bool:
    """Whether `add_turned` is the faster way to the weights' gradient, and there for it.

    A vector for each weight would fill the caches. What was read is turned once, which is worth it
    where it meets many channels of the gradient.
    """
    return outs >= _WIDE and outs % 4 == 0 and ins % (_BLOCKS * LANES) == 0


_WIDE: Final = 64
"""Channels that go out."""


@compiled
def add_turned(
    d: Any, d_at: int, d_o: int, outs: int, x: Any, x_at: int, ins: int, count: int, found: Any
) -> None:
    """Adds what a row says of the weights' gradient, given what the convolution read turned.

    Args:
        d: The gradient of the row; pixels follow each other.
        d_at: Where it begins.
        d_o: From a channel to the next.
        outs: Its channels; `is_wide` is true of them.
        x: What the convolution read, as `turn` leaves it.
        x_at: Where it begins.
        ins: Its channels.
        count: Pixels.
        found: The gradient, [o, i].
    """
    numbers = count * LANES
    x_b = numbers * LANES
    for into in range(0, ins, _BLOCKS * LANES):
        for out in range(0, outs, 4):
            _turned_4_4(
                d, d_at + out * d_o, d_o, x, x_at + into * numbers, x_b, numbers, found,
                out * ins + into, ins,
            )  # fmt: skip
