"""Depthwise convolutions of many operations at once.

A program has a channel of some images, and one of its threads a column, down which it goes. What it
has read of a row is kept in registers for the rows that need it as well: each value is read once
for each column of the kernel, and not once for each weight. Rows that are no multiple of the
dilation apart have nothing in common, and are different programs'.

Beyond the left and right edges a thread reads some value in the row, and multiplies it by zero: no
row needs to know which of its values are there. (One that is infinite comes out as no number.)

Legend: n images, c channels of all operations, h and w a channel's height and width, k taps along
an axis; a tap is a weight of a kernel.
"""

from math import gcd
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from search_core.relaxation.fused import launch, windows
from search_core.relaxation.works import Kernels

_COLUMNS: Final = 32
"""Of a program at most: a warp's."""

_NUM_WARPS: Final = 4
_NUM_WARPS_OF_WEIGHTS: Final = 1
"""One of its own adds up without waiting for others."""

_ROWS: Final = 16
"""That a program goes down at most."""

_UNROLLED: Final = 4
"""Rows whose values are on their way at once; half of them where a kernel is large."""

_MOST_REGISTERS: Final = 128
"""Of a thread, so that four programs fit on a processor; large kernels need more."""

_LARGE: Final = 7
"""Taps along an axis of a large kernel."""

_UNROLLED_STRIDES: Final = 2
"""Likewise rows of a result with larger strides."""

_PROGRAMS_OF_WEIGHTS: Final = 8 * launch.PROGRAMS
"""With about so many warps there is enough to do; more would make more sums."""

_SIZES: Final = [
    "images",
    "sources",
    "repeats",
    "in_h",
    "in_w",
    "out_h",
    "out_w",
    "column_blocks",
    "rows",
    "begin",
    "length",
]
"""Arguments of which a kernel would gain nothing by being compiled for some of their values."""


@triton.jit(do_not_specialize=_SIZES)
def _slide(
    x, weight, y, x_stride, y_stride, images, sources, repeats, in_h, in_w, out_h, out_w,
    column_blocks, rows, begin,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr, phases: tl.constexpr,
    flip: tl.constexpr, adds: tl.constexpr, unrolled: tl.constexpr,
    block_of_images: tl.constexpr, columns: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """The convolution; with flipped taps, at stride 1, the gradient of its input."""
    channel = tl.program_id(1)
    thread = tl.arange(0, columns * block_of_images)
    image = tl.program_id(2) * block_of_images + thread // columns
    n = tl.minimum(image, images - 1).to(tl.int64)
    column = (tl.program_id(0) % column_blocks) * columns + thread % columns
    strip = tl.program_id(0) // column_blocks
    phase = strip % phases + column * 0  # Python interprets no masks out of scalars.
    first = (strip // phases) * rows
    inside = (image < images) & (column < out_w)
    target = y + n * y_stride + channel * (out_h * out_w) + column
    if adds:
        for repeat in range(repeats):
            which = channel + repeat * tl.num_programs(1)
            source = x + n * x_stride + (which % sources) * (in_h * in_w)
            windows.slide(
                source, weight + which * (kernel * kernel), target, inside, column, phase, first,
                rows, in_h, in_w, out_h, out_w, repeat >= begin,
                kernel, stride, dilation, phases, flip, True, unrolled, acc,
            )  # fmt: skip
    else:
        source = x + n * x_stride + (channel % sources) * (in_h * in_w)
        windows.slide(
            source, weight + channel * (kernel * kernel), target, inside, column, phase, first,
            rows, in_h, in_w, out_h, out_w, False,
            kernel, stride, dilation, phases, flip, False, unrolled, acc,
        )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def _spread(
    d_y, weight, d_x, d_y_stride, d_x_stride, images, repeats, in_h, in_w, out_h, out_w,
    column_blocks, rows, begin,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr, unrolled: tl.constexpr,
    block_of_images: tl.constexpr, columns: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """The gradient of the input at larger strides: for each row of the result's, `stride` rows."""
    reach: tl.constexpr = kernel // 2 * dilation
    lowest: tl.constexpr = -(reach // stride)
    highest: tl.constexpr = (stride - 1 + reach) // stride
    channel = tl.program_id(1)
    thread = tl.arange(0, columns * block_of_images)
    image = tl.program_id(2) * block_of_images + thread // columns
    n = tl.minimum(image, images - 1).to(tl.int64)
    column = (tl.program_id(0) % column_blocks) * columns + thread % columns
    first = (tl.program_id(0) // column_blocks) * rows
    level = column * 0  # Python interprets no masks out of scalars.
    inside = (image < images) & (column < in_w)
    target = d_x + n * d_x_stride + channel * (in_h * in_w) + column
    for repeat in range(repeats):
        which = channel + repeat * tl.num_programs(1)
        source = d_y + n * d_y_stride + which * (out_h * out_w)
        places = ()
        taps = ()
        for i in tl.static_range(kernel):
            for j in tl.static_range(kernel):
                w = column + (reach - j * dilation)
                is_place = (w >= 0) & (w % stride == 0) & (w // stride < out_w)
                tap = tl.load(weight + which * (kernel * kernel) + (i * kernel + j)).to(acc)
                taps = taps + (tl.where(is_place, tap, 0.0),)
                if i == 0:
                    w = tl.minimum(tl.maximum(w, 0) // stride, out_w - 1)
                    places = places + (source + w,)
        values = ()
        for u in tl.static_range(highest - lowest):
            h = first + (lowest + u) + level
            values = values + windows.read(places, h, out_h, out_w, kernel, acc)
        for start in range(first, first + rows, unrolled):
            totals = ()
            for row in tl.static_range(unrolled):
                h = start + (row + highest) + level
                values = values + windows.read(places, h, out_h, out_w, kernel, acc)
                for remainder in tl.static_range(stride):
                    top = (start + row) * stride + remainder + level
                    is_known = inside & (top < in_h) & (level + repeat >= begin)
                    known = tl.load(target + top * in_w, mask=is_known, other=0.0)
                    totals = totals + (known.to(acc),)
            for row in tl.static_range(unrolled):
                for remainder in tl.static_range(stride):
                    top = (start + row) * stride + remainder + level
                    total = totals[row * stride + remainder]
                    for i in tl.static_range(kernel):
                        if (remainder + reach - i * dilation) % stride == 0:
                            for j in tl.static_range(kernel):
                                total += (
                                    values[
                                        (
                                            (remainder + reach - i * dilation) // stride
                                            - lowest
                                            + row
                                        )
                                        * kernel
                                        + j
                                    ]
                                    * taps[i * kernel + j]
                                )
                    is_target = inside & (top < in_h)
                    tl.store(target + top * in_w, total.to(d_x.dtype.element_ty), mask=is_target)
            values = windows.last(values, unrolled * kernel, (highest - lowest) * kernel)


@triton.jit(do_not_specialize=_SIZES)
def _weigh(
    x, d_y, partial, x_stride, d_y_stride, images, sources, length, in_h, in_w, out_h, out_w,
    column_blocks, rows,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr, phases: tl.constexpr,
    unrolled: tl.constexpr, block_of_images: tl.constexpr, columns: tl.constexpr, acc: tl.constexpr,
):  # fmt: skip
    """A channel's sum for each tap, over a strip of some images."""
    reach: tl.constexpr = kernel // 2 * dilation
    advance: tl.constexpr = stride * phases // dilation
    kept: tl.constexpr = kernel - advance if kernel > advance else 0
    channel = tl.program_id(1)
    thread = tl.arange(0, columns * block_of_images)
    column = (tl.program_id(0) % column_blocks) * columns + thread % columns
    strip = tl.program_id(0) // column_blocks
    phase = strip % phases + column * 0  # Python interprets no masks out of scalars.
    first = (strip // phases) * rows
    begin = tl.program_id(2) * length
    totals = ()
    for _ in tl.static_range(kernel * kernel):
        totals = totals + (tl.zeros([columns * block_of_images], dtype=acc),)
    for member in range(begin, begin + length, block_of_images):
        image = member + thread // columns
        n = tl.minimum(image, images - 1).to(tl.int64)
        inside = (image < images) & (column < out_w)
        source = x + n * x_stride + (channel % sources) * (in_h * in_w)
        slopes = d_y + n * d_y_stride + channel * (out_h * out_w) + tl.minimum(column, out_w - 1)
        places = ()
        for j in tl.static_range(kernel):
            w = column * stride + (j * dilation - reach)
            places = places + (source + tl.minimum(tl.maximum(w, 0), in_w - 1),)
        values = ()
        for u in tl.static_range(kept):
            h = (first * phases + phase) * stride + (u * dilation - reach)
            values = values + windows.read(places, h, in_h, in_w, kernel, acc)
        for start in range(first, first + rows, unrolled):
            read = ()
            for row in tl.static_range(unrolled):
                top = (start + row) * phases + phase
                for u in tl.static_range(advance):
                    h = top * stride + ((kept + u) * dilation - reach)
                    values = values + windows.read(places, h, in_h, in_w, kernel, acc)
                slope = tl.load(slopes + top * out_w, mask=inside & (top < out_h), other=0.0)
                read = read + (slope.to(acc),)
            for row in tl.static_range(unrolled):
                sums = ()
                for i in tl.static_range(kernel):
                    for j in tl.static_range(kernel):
                        value = values[(row * advance + i) * kernel + j]
                        sums = sums + (totals[i * kernel + j] + value * read[row],)
                totals = sums
            values = windows.last(values, unrolled * advance * kernel, kept * kernel)
    split = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    target = partial + (split.to(tl.int64) * tl.num_programs(1) + channel) * (kernel * kernel)
    for i in tl.static_range(kernel):
        for j in tl.static_range(kernel):
            w = column * stride + (j * dilation - reach)
            total = tl.where((w >= 0) & (w < in_w), totals[i * kernel + j], 0.0)
            tl.store(target + (i * kernel + j), tl.sum(total))


def convolve(x_nchw: Tensor, kernels: Kernels, y_nchw: Tensor) -> None:
    """Convolves each channel with its kernel, padded to keep the size at stride 1.

    Args:
        x_nchw: Images, dense but for the first dimension. Where there are more kernels than
            channels, these are read again from the first one on.
        kernels: The convolution.
        y_nchw: Where the result goes, a channel for each kernel; likewise.
    """
    _slid(x_nchw, kernels, y_nchw, flip=False, add=False)


def input_gradient(d_y_nchw: Tensor, kernels: Kernels, d_x_nchw: Tensor, *, add: bool) -> None:
    """The gradient of what was convolved.

    Args:
        d_y_nchw: The result's, dense but for the first dimension.
        kernels: The convolution.
        d_x_nchw: Where it goes; likewise.
        add: Whether it is added to what is there.
    """
    if kernels.stride == 1:
        _slid(d_y_nchw, kernels, d_x_nchw, flip=True, add=add)
        return
    n, c, height, width = d_x_nchw.shape
    out_h, out_w = d_y_nchw.shape[2:]
    images, columns, column_blocks = _tile(width, _NUM_WARPS)
    strides_down = triton.cdiv(height, kernels.stride)
    rows = triton.cdiv(min(strides_down, _ROWS), _UNROLLED_STRIDES) * _UNROLLED_STRIDES
    _spread[triton.cdiv(strides_down, rows) * column_blocks, c, triton.cdiv(n, images)](
        d_y_nchw, kernels.weight_c1kk, d_x_nchw, d_y_nchw.stride(0), d_x_nchw.stride(0), n,
        d_y_nchw.shape[1] // c, height, width, out_h, out_w, column_blocks, rows, int(not add),
        kernels.weight_c1kk.shape[2], kernels.stride, kernels.dilation, _UNROLLED_STRIDES, images,
        columns, launch.accumulator(d_y_nchw), num_warps=_NUM_WARPS,
    )  # fmt: skip


def weight_gradient(x_nchw: Tensor, d_y_nchw: Tensor, kernels: Kernels) -> Tensor:
    """Parts of the gradient of the weights.

    Args:
        x_nchw: What was convolved, dense but for the first dimension.
        d_y_nchw: The result's gradient, likewise.
        kernels: The convolution.

    Returns:
        [parts, c, k * k], in single precision at least.
    """
    n, c, height, width = d_y_nchw.shape
    weight_c1kk = kernels.weight_c1kk
    kernel = weight_c1kk.shape[2]
    phases, rows, strips = _strips(height, kernels)
    images, columns, column_blocks = _tile(width, _NUM_WARPS_OF_WEIGHTS)
    pieces = strips * column_blocks
    wanted = max(1, _PROGRAMS_OF_WEIGHTS // (pieces * c))
    length = triton.cdiv(triton.cdiv(n, wanted), images) * images
    splits = triton.cdiv(n, length)
    partial = d_y_nchw.new_empty(
        (splits * pieces, c, kernel * kernel), dtype=launch.statistics_dtype(d_y_nchw)
    )
    _weigh[pieces, c, splits](
        x_nchw, d_y_nchw, partial, x_nchw.stride(0), d_y_nchw.stride(0), n, x_nchw.shape[1],
        length, *x_nchw.shape[2:], height, width, column_blocks, rows, kernel, kernels.stride,
        kernels.dilation, phases, _UNROLLED, images, columns, launch.accumulator(d_y_nchw),
        num_warps=_NUM_WARPS_OF_WEIGHTS,
    )  # fmt: skip
    return partial


def _slid(x_nchw: Tensor, kernels: Kernels, y_nchw: Tensor, *, flip: bool, add: bool) -> None:
    n, c, height, width = y_nchw.shape
    repeats = len(kernels.weight_c1kk) // c
    kernel = kernels.weight_c1kk.shape[2]
    phases, rows, strips = _strips(height, kernels)
    images, columns, column_blocks = _tile(width, _NUM_WARPS)
    _slide[strips * column_blocks, c, triton.cdiv(n, images)](
        x_nchw, kernels.weight_c1kk, y_nchw, x_nchw.stride(0), y_nchw.stride(0), n,
        x_nchw.shape[1], repeats, *x_nchw.shape[2:], height, width, column_blocks, rows,
        int(not add), kernel, kernels.stride, kernels.dilation, phases, flip, add or repeats > 1,
        _UNROLLED if kernel < _LARGE else _UNROLLED // 2, images, columns,
        launch.accumulator(x_nchw), num_warps=_NUM_WARPS,
        maxnreg=_MOST_REGISTERS if kernel < _LARGE else None,
    )  # fmt: skip


def _strips(height: int, kernels: Kernels) -> tuple[int, int, int]:
    """Phases of a result's rows, rows of a program, and strips of all phases."""
    phases = kernels.dilation // gcd(kernels.dilation, kernels.stride)
    of_phase = triton.cdiv(height, phases)
    rows = triton.cdiv(min(of_phase, _ROWS), _UNROLLED) * _UNROLLED
    return phases, rows, phases * triton.cdiv(of_phase, rows)


def _tile(width: int, num_warps: int) -> tuple[int, int, int]:
    """Images and columns of a program, one for each thread, and blocks of columns in a row."""
    columns = launch.power_of_two(width, 4, _COLUMNS)
    return 32 * num_warps // columns, columns, triton.cdiv(width, columns)
