"""Rows of depthwise convolutions, and of the gradients of their kernels.

Legend: k taps along an axis.
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

KERNELS: Final = (1, 3, 5, 7)
"""The sizes that there is code for."""

_PIXELS: Final = 8
"""Sums of a row that are in registers at the same time."""

_TAPS: Final = 25
"""Sums of a kernel's gradient that are."""


def _convolution(k: int) -> Callable[..., Any]:
    @intrinsic
    def convolve(
        _context: Any, x: Any, rows: Any, tap: Any, step: Any, kernels: Any, at: Any, y: Any,
        y_at: Any, count: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x_kind, rows_kind, _, _, kernels_kind, _, y_kind, _, _ = signature.args
            x, rows, tap, step, kernels, at, y, y_at, count = args
            taps = [builder.mul(tap, constant(each)) for each in range(k)]
            kind = vector_type(context, x_kind.dtype)
            sums = [cgutils.alloca_once(builder, kind) for _ in range(_PIXELS)]

            def pixels(first: Any, number: int) -> None:
                shift = builder.mul(first, step)
                steps = [builder.mul(step, constant(each)) for each in range(number)]
                for each in sums[:number]:
                    builder.store(zeros(context, x_kind.dtype), each)
                # A loop over rows, not one piece of code: it is as fast, and compiled sooner.
                with cgutils.for_range(builder, constant(k)) as row:
                    start = scalar_at(context, builder, rows_kind, rows, row.index)
                    start = builder.add(start, shift)
                    weights_at = builder.add(at, builder.mul(row.index, constant(k)))
                    for column, offset in enumerate(taps):
                        place = builder.add(weights_at, constant(column))
                        weight = repeated(
                            builder, scalar_at(context, builder, kernels_kind, kernels, place)
                        )
                        seen = builder.add(start, offset)
                        for each, further in zip(sums, steps, strict=False):
                            value = vector_at(
                                context, builder, x_kind, x, builder.add(seen, further)
                            )
                            value = multiply_add(builder, weight, value, builder.load(each))
                            builder.store(value, each)
                for each, sum_ in enumerate(sums[:number]):
                    place = builder.add(first, constant(each))
                    place = builder.add(y_at, builder.mul(place, constant(LANES)))
                    put(context, builder, y_kind, y, place, builder.load(sum_))

            _in_blocks(builder, count, pixels)
            return context.get_dummy_value()

        return types.void(
            x, rows, types.int64, types.int64, kernels, types.int64, y, types.int64, types.int64
        ), generate

    return convolve


def _in_blocks(builder: Any, count: Any, block: Callable[[Any, int], None]) -> None:
    """Generates loops over blocks, and over what is left one by one."""
    blocks = builder.sdiv(count, constant(_PIXELS))
    with cgutils.for_range(builder, blocks) as loop:
        block(builder.mul(loop.index, constant(_PIXELS)), _PIXELS)
    done = builder.mul(blocks, constant(_PIXELS))
    with cgutils.for_range(builder, builder.sub(count, done)) as loop:
        block(builder.add(done, loop.index), 1)


def _correlation(k: int, first_row: int, num_rows: int) -> Callable[..., Any]:
    @intrinsic
    def correlate(
        _context: Any, d: Any, d_at: Any, x: Any, rows: Any, tap: Any, step: Any, sums: Any,
        at: Any, count: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            d_kind, _, x_kind, rows_kind, _, _, sums_kind, _, _ = signature.args
            d, d_at, x, rows, tap, step, sums, at, count = args
            starts = [
                scalar_at(context, builder, rows_kind, rows, constant(first_row + each))
                for each in range(num_rows)
            ]
            taps = [builder.mul(tap, constant(each)) for each in range(k)]
            kind = vector_type(context, x_kind.dtype)
            places = [
                builder.add(at, constant((first_row * k + each) * LANES))
                for each in range(num_rows * k)
            ]
            totals = [cgutils.alloca_once(builder, kind) for _ in places]
            for place, each in zip(places, totals, strict=True):
                builder.store(vector_at(context, builder, sums_kind, sums, place), each)
            with cgutils.for_range(builder, count) as loop:
                shift = builder.mul(loop.index, step)
                gradient = vector_at(context, builder, d_kind, d, builder.add(d_at, shift))
                for row, start in enumerate(starts):
                    start = builder.add(start, shift)
                    for column, offset in enumerate(taps):
                        each = totals[row * k + column]
                        value = vector_at(context, builder, x_kind, x, builder.add(start, offset))
                        value = multiply_add(builder, gradient, value, builder.load(each))
                        builder.store(value, each)
            for place, each in zip(places, totals, strict=True):
                put(context, builder, sums_kind, sums, place, builder.load(each))
            return context.get_dummy_value()

        return types.void(
            d, types.int64, x, rows, types.int64, types.int64, sums, types.int64, types.int64
        ), generate

    return correlate


_convolve_1, _convolve_3, _convolve_5, _convolve_7 = (_convolution(k) for k in KERNELS)
_correlate_1, _correlate_3, _correlate_5 = (_correlation(k, 0, k) for k in KERNELS[:3])
_correlate_7_top, _correlate_7_middle, _correlate_7_bottom = (
    _correlation(7, first, number) for first, number in ((0, 3), (3, 3), (6, 1))
)


@compiled
def convolve(
    k: int, x: Any, rows: Any, tap: int, step: int, kernels: Any, at: int, y: Any, y_at: int,
    count: int,
) -> None:  # fmt: skip
    """Computes a row of a depthwise convolution.

    Args:
        k: Taps along an axis; one of `KERNELS`.
        x: Where the images' rows are.
        rows: Where each of the k rows begins, at its first pixel's first tap.
        tap: From one tap to the next.
        step: From what one pixel sees first to what the next one does.
        kernels: Kernels.
        at: Where this one begins.
        y: Where the row goes.
        y_at: And where in it.
        count: Pixels.
    """
    if k == 3:
        _convolve_3(x, rows, tap, step, kernels, at, y, y_at, count)
    elif k == 5:
        _convolve_5(x, rows, tap, step, kernels, at, y, y_at, count)
    elif k == 7:
        _convolve_7(x, rows, tap, step, kernels, at, y, y_at, count)
    else:
        _convolve_1(x, rows, tap, step, kernels, at, y, y_at, count)


@compiled
def correlate(
    k: int, d: Any, d_at: int, x: Any, rows: Any, tap: int, step: int, sums: Any, at: int,
    count: int,
) -> None:  # fmt: skip
    """Adds what a row says of a kernel's gradient.

    Args:
        k: Taps along an axis; one of `KERNELS`.
        d: The gradient of the row, whose pixels are `step` apart.
        d_at: Where it begins.
        x: Where the images' rows are.
        rows: Where each of the k rows begins.
        tap: From one tap to the next.
        step: From what one pixel sees first to what the next one does.
        sums: The gradients, a vector for each tap.
        at: Where this one begins.
        count: Pixels.
    """
    if k == 3:
        _correlate_3(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 5:
        _correlate_5(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 7:
        _correlate_7_top(d, d_at, x, rows, tap, step, sums, at, count)
        _correlate_7_middle(d, d_at, x, rows, tap, step, sums, at, count)
        _correlate_7_bottom(d, d_at, x, rows, tap, step, sums, at, count)
    else:
        _correlate_1(d, d_at, x, rows, tap, step, sums, at, count)
