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


_RUN: Final = 4
"""Pixels of a row that a kernel's gradient takes at the same time."""


def _convolution(k: int, dilation: int | None) -> Callable[..., Any]:
    """A row of a convolution.

    Args:
        k: Taps along an axis.
        dilation: Pixels from a tap to the next, at stride 1; None for what a call says.
    """

    @intrinsic
    def convolve(
        _context: Any, x: Any, rows: Any, tap: Any, step: Any, kernels: Any, at: Any, y: Any,
        y_at: Any, count: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x_kind, rows_kind, _, _, kernels_kind, _, y_kind, _, _ = signature.args
            x, rows, tap, step, kernels, at, y, y_at, count = args
            step = step if dilation is None else constant(LANES)
            apart = _multiples(builder, tap, k), _multiples(builder, step, _PIXELS)
            sums = [
                cgutils.alloca_once(builder, vector_type(context, x_kind.dtype))
                for _ in range(_PIXELS)
            ]

            def pixels(first: Any, number: int) -> None:
                shift = builder.mul(first, step)
                for each in sums[:number]:
                    builder.store(zeros(context, x_kind.dtype), each)
                # A loop over rows, not one piece of code: it is as fast, and compiled sooner.
                with cgutils.for_range(builder, constant(k)) as row:
                    start = scalar_at(context, builder, rows_kind, rows, row.index)
                    start = builder.add(start, shift)
                    seen = _seen(context, builder, (x_kind, x), start, apart, dilation)
                    weights_at = builder.add(at, builder.mul(row.index, constant(k)))
                    for column in range(k):
                        place = builder.add(weights_at, constant(column))
                        weight = repeated(
                            builder, scalar_at(context, builder, kernels_kind, kernels, place)
                        )
                        for pixel, each in enumerate(sums[:number]):
                            value = seen(column, pixel)
                            value = multiply_add(builder, weight, value, builder.load(each))
                            builder.store(value, each)
                for each, sum_ in enumerate(sums[:number]):
                    place = builder.add(first, constant(each))
                    place = builder.add(y_at, builder.mul(place, constant(LANES)))
                    put(context, builder, y_kind, y, place, builder.load(sum_))

            _in_blocks(builder, count, _PIXELS, pixels)
            return context.get_dummy_value()

        return types.void(
            x, rows, types.int64, types.int64, kernels, types.int64, y, types.int64, types.int64
        ), generate

    return convolve


def _seen(
    context: Any, builder: Any, row: tuple[Any, Any], start: Any,
    apart: tuple[list[Any], list[Any]], dilation: int | None,
) -> Callable[[int, int], Any]:  # fmt: skip
    """Generates what a tap sees of a pixel.

    Where pixels are next to each other and taps a known number of pixels apart, a value that
    several pixels see is loaded once, and no addresses are computed.

    Args:
        context: Numba's.
        builder: Of the code.
        row: Type and value of an array.
        start: Where in it the first tap of the first pixel is.
        apart: From the first tap to each, and from the first pixel to each.
        dilation: As of `_convolution`.

    Returns:
        From tap and pixel to what it sees.
    """
    loaded: dict[int, Any] = {}
    taps, steps = apart

    def seen(column: int, pixel: int) -> Any:
        if dilation is None:
            place = builder.add(builder.add(start, taps[column]), steps[pixel])
            return vector_at(context, builder, *row, place)
        index = pixel + column * dilation
        if index not in loaded:
            place = builder.add(start, constant(index * LANES))
            loaded[index] = vector_at(context, builder, *row, place)
        return loaded[index]

    return seen


def _multiples(builder: Any, value: Any, count: int) -> list[Any]:
    return [builder.mul(value, constant(each)) for each in range(count)]


def _in_blocks(builder: Any, count: Any, size: int, block: Callable[[Any, int], None]) -> None:
    """Generates loops over blocks, and over what is left one by one."""
    blocks = builder.sdiv(count, constant(size))
    with cgutils.for_range(builder, blocks) as loop:
        block(builder.mul(loop.index, constant(size)), size)
    if size == 1:
        return
    done = builder.mul(blocks, constant(size))
    with cgutils.for_range(builder, builder.sub(count, done)) as loop:
        block(builder.add(done, loop.index), 1)


def _correlation(k: int, first_row: int, num_rows: int, dilation: int | None) -> Callable[..., Any]:
    """What a row says of some rows of a kernel's gradient.

    Args:
        k: Taps along an axis.
        first_row: The first row of the kernel.
        num_rows: How many of them.
        dilation: As of `_convolution`.
    """

    @intrinsic
    def correlate(
        _context: Any, d: Any, d_at: Any, x: Any, rows: Any, tap: Any, step: Any, sums: Any,
        at: Any, count: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            d_kind, _, x_kind, rows_kind, _, _, sums_kind, _, _ = signature.args
            d, d_at, x, rows, tap, step, sums, at, count = args
            step = step if dilation is None else constant(LANES)
            apart = _multiples(builder, tap, k), _multiples(builder, step, 1)
            places = [
                builder.add(at, constant((first_row * k + each) * LANES))
                for each in range(num_rows * k)
            ]
            totals = [
                cgutils.alloca_once(builder, vector_type(context, x_kind.dtype)) for _ in places
            ]
            for place, each in zip(places, totals, strict=True):
                builder.store(vector_at(context, builder, sums_kind, sums, place), each)

            def pixels(first: Any, number: int) -> None:
                shift = builder.mul(first, step)
                d_first = builder.add(d_at, shift)
                gradients = [
                    vector_at(context, builder, d_kind, d, builder.add(d_first, constant(each)))
                    for each in range(0, number * LANES, LANES)
                ]
                for row in range(num_rows):
                    start = scalar_at(context, builder, rows_kind, rows, constant(first_row + row))
                    start = builder.add(start, shift)
                    seen = _seen(context, builder, (x_kind, x), start, apart, dilation)
                    for column, pixel in _from_left(k, number, dilation or 1):
                        each = totals[row * k + column]
                        value = seen(column, pixel)
                        value = multiply_add(builder, gradients[pixel], value, builder.load(each))
                        builder.store(value, each)

            _in_blocks(builder, count, 1 if dilation is None else _RUN, pixels)
            for place, each in zip(places, totals, strict=True):
                put(context, builder, sums_kind, sums, place, builder.load(each))
            return context.get_dummy_value()

        return types.void(
            d, types.int64, x, rows, types.int64, types.int64, sums, types.int64, types.int64
        ), generate

    return correlate


def _from_left(k: int, pixels: int, dilation: int) -> list[tuple[int, int]]:
    """Taps and pixels in the order of what they see, so that each value is done with soon."""
    pairs = [(column, pixel) for column in range(k) for pixel in range(pixels)]
    return sorted(pairs, key=lambda pair: pair[0] * dilation + pair[1])


# By the taps along an axis. Those with a second number are for stride 1 and this dilation; each
# takes a second or two to compile, so there are those of the published primitives only.
_convolve_1, _convolve_3, _convolve_5, _convolve_7 = (_convolution(k, None) for k in KERNELS)
_convolve_3_1, _convolve_5_1 = (_convolution(k, 1) for k in KERNELS[1:3])
_convolve_3_2, _convolve_5_2 = (_convolution(k, 2) for k in KERNELS[1:3])
_correlate_1, _correlate_3, _correlate_5 = (_correlation(k, 0, k, None) for k in KERNELS[:3])
_correlate_3_1, _correlate_5_1 = (_correlation(k, 0, k, 1) for k in KERNELS[1:3])
_correlate_3_2, _correlate_5_2 = (_correlation(k, 0, k, 2) for k in KERNELS[1:3])
_correlate_7_top, _correlate_7_middle, _correlate_7_bottom = (
    _correlation(7, first, number, None) for first, number in ((0, 3), (3, 3), (6, 1))
)


@compiled
def _known_dilation(tap: int, step: int) -> int:
    """The dilation that there is code for, 1 or 2, at stride 1; else 0."""
    if step != LANES:
        return 0
    return 1 if tap == LANES else 2 if tap == 2 * LANES else 0


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
    dilation = _known_dilation(tap, step)
    if k == 3 and dilation == 1:
        _convolve_3_1(x, rows, tap, step, kernels, at, y, y_at, count)
    elif k == 3 and dilation == 2:
        _convolve_3_2(x, rows, tap, step, kernels, at, y, y_at, count)
    elif k == 3:
        _convolve_3(x, rows, tap, step, kernels, at, y, y_at, count)
    elif k == 5 and dilation == 1:
        _convolve_5_1(x, rows, tap, step, kernels, at, y, y_at, count)
    elif k == 5 and dilation == 2:
        _convolve_5_2(x, rows, tap, step, kernels, at, y, y_at, count)
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
    dilation = _known_dilation(tap, step)
    if k == 3 and dilation == 1:
        _correlate_3_1(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 3 and dilation == 2:
        _correlate_3_2(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 3:
        _correlate_3(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 5 and dilation == 1:
        _correlate_5_1(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 5 and dilation == 2:
        _correlate_5_2(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 5:
        _correlate_5(d, d_at, x, rows, tap, step, sums, at, count)
    elif k == 7:
        _correlate_7_top(d, d_at, x, rows, tap, step, sums, at, count)
        _correlate_7_middle(d, d_at, x, rows, tap, step, sums, at, count)
        _correlate_7_bottom(d, d_at, x, rows, tap, step, sums, at, count)
    else:
        _correlate_1(d, d_at, x, rows, tap, step, sums, at, count)
