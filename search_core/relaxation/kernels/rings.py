"""The rows of the input that a stage works on, ring-wise in scratch memory.

Legend: g groups of as many images as there are lanes, i channels that come in, h height, w width, l
lanes, k taps along an axis.
"""

from typing import Any, Final, NamedTuple

from search_core.relaxation.kernels.compiling import LANES, compiled, kernel
from search_core.relaxation.kernels.vectors import fetch, fma, load, rectified, splat, store

AS_IS: Final = 0
"""A stage reads its input as it is,"""
RECTIFIED: Final = 1
"""or rectified,"""
NORMALISED: Final = 2
"""or times a scale, plus a shift, rectified."""


class Sizes(NamedTuple):
    """What a stage computes.

    Attributes:
        images: Images.
        ins: Channels that come in.
        outs: Channels that go out.
        height: Of the input.
        width: Of the input.
        k: Taps along an axis; with 0 there is no depthwise convolution.
        stride: Of the output.
        dilation: Pixels between two taps.
    """

    images: int
    ins: int
    outs: int
    height: int
    width: int
    k: int
    stride: int
    dilation: int


class Ring(NamedTuple):
    """The rows that a kernel reaches, of all channels, with zeros around them.

    Attributes:
        reach: Pixels that a kernel reaches beyond its middle.
        slots: Rows that there is room for, a power of 2; row r is in slot r modulo slots.
        row: From a row to the next.
        plane: From a channel to the next.
        size: Of all channels.
    """

    reach: int
    slots: int
    row: int
    plane: int
    size: int


@compiled
def ring_of(sizes: Sizes) -> Ring:
    """The ring that a stage needs.

    Args:
        sizes: What it computes.
    """
    reach = sizes.dilation * (sizes.k // 2)
    slots = 1
    while slots < 2 * reach + 1:
        slots *= 2
    row = (sizes.width + 2 * reach) * LANES
    return Ring(reach, slots, row, slots * row, sizes.ins * slots * row)


@compiled
def out_size(sizes: Sizes) -> tuple[int, int]:
    """Height and width of what comes out.

    Args:
        sizes: What a stage computes.
    """
    return -(-sizes.height // sizes.stride), -(-sizes.width // sizes.stride)


@kernel
def scratch_size(sizes: Sizes) -> int:
    """How many numbers of scratch a stage needs, forward or backward.

    Args:
        sizes: What it computes.
    """
    _, out_width = out_size(sizes)
    line = (sizes.outs + 2 * sizes.ins) * out_width + sizes.width
    return int(2 * ring_of(sizes).size + line * LANES)


@compiled
def valid_lanes(images: int, group: int, valid: Any) -> Any:
    """A vector of ones where a group has an image, and zeros elsewhere."""
    for lane in range(LANES):
        valid[lane] = 1.0 if group * LANES + lane < images else 0.0
    return load(valid, 0)


@compiled
def clear_margins(ring: Any, at: int, planes: int, rows: int, width: int, reach: int) -> None:
    """Zeros left and right of every row."""
    nothing = splat(ring.dtype.type(0))
    length = width + 2 * reach
    for row in range(planes * rows):
        start = at + row * length * LANES
        for pixel in range(reach):
            store(ring, start + pixel * LANES, nothing)
            store(ring, start + (reach + width + pixel) * LANES, nothing)


@compiled
def clear(ring: Any, at: int, pixels: int) -> None:
    """Zeros for some pixels of a row."""
    nothing = splat(ring.dtype.type(0))
    for pixel in range(pixels):
        store(ring, at + pixel * LANES, nothing)


@compiled
def read_row(
    x: Any, x_at: int, step: int, mode: int, scale: Any, shift: Any, out: Any, out_at: int,
    count: int,
) -> None:  # fmt: skip
    """Reads a row as a stage sees it, every `step`-th pixel."""
    if mode == NORMALISED:
        scales, shifts = splat(scale), splat(shift)
        for pixel in range(count):
            value = fma(load(x, x_at + pixel * step * LANES), scales, shifts)
            store(out, out_at + pixel * LANES, rectified(value))
    elif mode == RECTIFIED:
        for pixel in range(count):
            value = load(x, x_at + pixel * step * LANES)
            store(out, out_at + pixel * LANES, rectified(value))
    else:
        for pixel in range(count):
            store(out, out_at + pixel * LANES, load(x, x_at + pixel * step * LANES))


@compiled
def fetch_row(x: Any, plane: int, row: int, height: int, width: int) -> None:
    """Has a row brought into the cache while something else is computed, if there is such a row.

    Rows of different channels lie too far apart for the processor to foresee them. Fetching costs
    time of its own where much of it comes at once, so that a channel's row is fetched
    behind what is computed of the channel.

    Args:
        x: Planes of pixels, [planes, h, w, l].
        plane: The plane.
        row: The row.
        height: Rows of a plane.
        width: Pixels of a row.
    """
    if 0 <= row < height:
        at = (plane * height + row) * width * LANES
        for pixel in range(width):
            fetch(x, at + pixel * LANES)


@compiled
def fill(
    x: Any, group: int, index: int, mode: int, folded: Any, scratch: Any, at: int, ring: Ring,
    sizes: Sizes,
) -> None:  # fmt: skip
    """Reads a row of all channels into a ring."""
    at += (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    for c in range(sizes.ins):
        if 0 <= index < sizes.height:
            x_at = ((group * sizes.ins + c) * sizes.height + index) * sizes.width * LANES
            read_row(
                x, x_at, 1, mode, folded[c], folded[sizes.ins + c], scratch, at + c * ring.plane,
                sizes.width,
            )  # fmt: skip
        else:
            clear(scratch, at + c * ring.plane, sizes.width)


@compiled
def locate(rows: Any, at: int, top: int, ring: Ring, sizes: Sizes) -> None:
    """Where the rows that a kernel sees begin in a ring."""
    for tap in range(sizes.k):
        rows[tap] = at + ((top + tap * sizes.dilation) & (ring.slots - 1)) * ring.row


@compiled
def prepare(scratch: Any, ring: Ring, sizes: Sizes) -> None:
    """Zeros wherever no gradient will be put: around the rows, and between spread pixels."""
    if sizes.stride > 1:
        clear(scratch, 0, ring.size // LANES)
    else:
        clear_margins(scratch, 0, sizes.ins, ring.slots, sizes.width, ring.reach)


@compiled
def leave_out(scratch: Any, index: int, ring: Ring, sizes: Sizes) -> None:
    """Zeros in place of a row that no gradient comes from."""
    at = (index & (ring.slots - 1)) * ring.row + ring.reach * LANES
    for c in range(sizes.ins):
        clear(scratch, c * ring.plane + at, sizes.width)
