"""Rows of pointwise convolutions, and of the gradients of what they read.

Legend: i channels that are summed over, o channels that come out.
"""

from collections.abc import Callable
from typing import Any

from numba.core import cgutils, types

from search_core.relaxation.kernels.compiling import LANES, compiled, intrinsic
from search_core.relaxation.kernels.vectors import (
    constant,
    fetch_at,
    multiply_add,
    put,
    repeated,
    scalar_at,
    vector_at,
    vector_type,
    zeros,
)


def _product(outs: int, pixels: int) -> Callable[..., Any]:
    """Some channels of some pixels, all in registers.

    Where those of the next pixels go is fetched meanwhile: writing would wait for it.
    """

    @intrinsic
    def multiply(
        _context: Any, w: Any, w_at: Any, w_o: Any, w_i: Any, x: Any, x_at: Any, x_i: Any, y: Any,
        y_at: Any, y_o: Any, step: Any, ins: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w_kind, x_kind, y_kind = (signature.args[each] for each in (0, 4, 7))
            w, w_at, w_o, w_i, x, x_at, x_i, y, y_at, y_o, step, ins = args
            kind = vector_type(context, x_kind.dtype)
            sums = [
                [cgutils.alloca_once(builder, kind) for _ in range(pixels)] for _ in range(outs)
            ]
            for each in (each for row in sums for each in row):
                builder.store(zeros(context, x_kind.dtype), each)
            starts = [builder.add(w_at, builder.mul(w_o, constant(each))) for each in range(outs)]
            places = [
                [
                    builder.add(
                        builder.add(y_at, builder.mul(y_o, constant(out))),
                        builder.mul(step, constant(pixel)),
                    )
                    for pixel in range(pixels)
                ]
                for out in range(outs)
            ]
            ahead = builder.mul(step, constant(pixels))
            for place in (place for row in places for place in row):
                place = builder.add(place, ahead)
                fetch_at(context, builder, y_kind, y, place, to_write=True)
            with cgutils.for_range(builder, ins) as loop:
                seen = builder.add(x_at, builder.mul(loop.index, x_i))
                values = [
                    vector_at(
                        context, builder, x_kind, x, builder.add(seen, constant(each * LANES))
                    )
                    for each in range(pixels)
                ]
                shift = builder.mul(loop.index, w_i)
                for start, row in zip(starts, sums, strict=True):
                    place = builder.add(start, shift)
                    weight = repeated(builder, scalar_at(context, builder, w_kind, w, place))
                    for value, each in zip(values, row, strict=True):
                        value = multiply_add(builder, weight, value, builder.load(each))
                        builder.store(value, each)
            for places_of, row in zip(places, sums, strict=True):
                for place, each in zip(places_of, row, strict=True):
                    put(context, builder, y_kind, y, place, builder.load(each))
            return context.get_dummy_value()

        number = types.int64
        return types.void(
            w, number, number, number, x, number, number, y, number, number, number, number
        ), generate

    return multiply


_product_4_4, _product_1_4 = _product(4, 4), _product(1, 4)
_product_4_1, _product_1_1 = _product(4, 1), _product(1, 1)


@compiled
def multiply(
    w: Any, w_o: int, w_i: int, outs: int, ins: int, x: Any, x_at: int, x_i: int, y: Any,
    y_at: int, y_o: int, step: int, count: int,
) -> None:  # fmt: skip
    """Computes a row of a pointwise convolution, or of the gradient of what it reads.

    Args:
        w: Weights.
        w_o: From the weight of a channel that comes out to the next one's.
        w_i: From that of a channel that is summed over to the next one's.
        outs: Channels that come out.
        ins: Channels that are summed over.
        x: What it reads; pixels follow each other.
        x_at: Where it begins.
        x_i: From a channel to the next.
        y: Where the row goes.
        y_at: And where in it.
        y_o: From a channel to the next.
        step: From a pixel to the next, there.
        count: Pixels.
    """
    pixel = 0
    while pixel + 4 <= count:
        seen, place = x_at + pixel * LANES, y_at + pixel * step
        out = 0
        while out + 4 <= outs:
            _product_4_4(w, out * w_o, w_o, w_i, x, seen, x_i, y, place + out * y_o, y_o, step, ins)
            out += 4
        while out < outs:
            _product_1_4(w, out * w_o, w_o, w_i, x, seen, x_i, y, place + out * y_o, y_o, step, ins)
            out += 1
        pixel += 4
    while pixel < count:
        seen, place = x_at + pixel * LANES, y_at + pixel * step
        out = 0
        while out + 4 <= outs:
            _product_4_1(w, out * w_o, w_o, w_i, x, seen, x_i, y, place + out * y_o, y_o, step, ins)
            out += 4
        while out < outs:
            _product_1_1(w, out * w_o, w_o, w_i, x, seen, x_i, y, place + out * y_o, y_o, step, ins)
            out += 1
        pixel += 1
