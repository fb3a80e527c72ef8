"""Images into lanes, and back.

Legend: l lanes.
"""

from typing import Any

from numba.core import types

from search_core.relaxation.kernels.compiling import LANES, compiled, intrinsic, kernel
from search_core.relaxation.kernels.vectors import constant, put, shuffled, vector_at


def _zipped(builder: Any, vectors: list[Any]) -> list[Any]:
    """The transpose of as many vectors as there are lanes.

    Every round takes vectors half of all apart together like the sides of a zip; as many rounds as
    the lanes' logarithm swap the number of the vector with that of the lane.
    """
    half = LANES // 2
    low = [side * LANES + lane for lane in range(half) for side in range(2)]
    high = [side * LANES + lane for lane in range(half, LANES) for side in range(2)]
    rounds = LANES.bit_length() - 1
    for _ in range(rounds):
        vectors = [
            shuffled(builder, vectors[each], vectors[each + half], order)
            for each in range(half)
            for order in (low, high)
        ]
    return vectors


@intrinsic
def _transpose(_context: Any, x: Any, at: Any, step: Any, y: Any, y_at: Any, y_step: Any) -> Any:
    """As many vectors as there are lanes, each `step` from the last, the other way round."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_kind, _, _, y_kind, _, _ = signature.args
        x, at, step, y, y_at, y_step = args
        lanes = range(LANES)
        starts = [builder.add(at, builder.mul(step, constant(lane))) for lane in lanes]
        vectors = [vector_at(context, builder, x_kind, x, each) for each in starts]
        for lane, vector in enumerate(_zipped(builder, vectors)):
            place = builder.add(y_at, builder.mul(y_step, constant(lane)))
            put(context, builder, y_kind, y, place, vector)
        return context.get_dummy_value()

    number = types.int64
    return types.void(x, number, number, y, number, number), generate


@compiled
def turn(x: Any, at: int, line: int, lines: int, count: int, y: Any, y_at: int) -> None:
    """Exchanges lanes and lines, as many of these as there are lanes at a time.

    Args:
        x: Lines of vectors, one behind the other.
        at: Where they begin.
        line: From a line to the next.
        lines: How many there are, a multiple of the lanes.
        count: Vectors of a line.
        y: For each block of lines, of each vector, of each lane, the numbers of the lines; written.
        y_at: Where it begins.
    """
    for block in range(lines // LANES):
        for each in range(count):
            start = at + block * LANES * line + each * LANES
            _transpose(x, start, line, y, y_at + (block * count + each) * LANES * LANES, LANES)


@kernel
def into_lanes(
    x: Any, image: int, lines: int, line: int, count: int, y: Any, y_group: int, y_line: int,
    step: int, images: int,
) -> None:  # fmt: skip
    """Gathers the values of as many images as there are lanes in vectors.

    An image is lines of numbers that follow each other: its channels' pixels, or its pixels'
    channels.

    Args:
        x: Images.
        image: From one image to the next.
        lines: Lines of an image.
        line: From one line to the next.
        count: Numbers of a line.
        y: The vectors; written, with zeros where there is no image.
        y_group: From the vectors of a group of images to the next.
        y_line: From those of a line to the next.
        step: From that of a number to the next.
        images: Images.
    """
    for group in range(-(-images // LANES)):
        first = group * LANES
        full = first + LANES <= images
        for each in range(lines):
            at, y_at = first * image + each * line, group * y_group + each * y_line
            number = 0
            if full:
                while number + LANES <= count:
                    _transpose(x, at + number, image, y, y_at + number * step, step)
                    number += LANES
            while number < count:
                for lane in range(LANES):
                    value = x.dtype.type(0)
                    if first + lane < images:
                        value = x[at + number + lane * image]
                    y[y_at + number * step + lane] = value
                number += 1


@kernel
def out_of_lanes(
    y: Any, y_group: int, y_line: int, step: int, images: int, x: Any, image: int, lines: int,
    line: int, count: int,
) -> None:  # fmt: skip
    """Undoes `into_lanes`.

    Args:
        y: The vectors.
        y_group: From the vectors of a group of images to the next.
        y_line: From those of a line to the next.
        step: From that of a number to the next.
        images: Images.
        x: Images; written.
        image: From one image to the next.
        lines: Lines of an image.
        line: From one line to the next.
        count: Numbers of a line.
    """
    for group in range(-(-images // LANES)):
        first = group * LANES
        full = first + LANES <= images
        for each in range(lines):
            at, y_at = first * image + each * line, group * y_group + each * y_line
            number = 0
            if full:
                while number + LANES <= count:
                    _transpose(y, y_at + number * step, step, x, at + number, image)
                    number += LANES
            while number < count:
                for lane in range(min(LANES, images - first)):
                    x[at + number + lane * image] = y[y_at + number * step + lane]
                number += 1
