"""Some channels of a pool or a normalisation as a job; see `jobs`."""

from typing import Any, Final

from numba import carray

from search_core.relaxation.kernels import pools
from search_core.relaxation.kernels.compiling import LANES, compiled
from search_core.relaxation.kernels.jobs import COLUMNS, Work
from search_core.relaxation.kernels.memory import array_at, doubles, integers_at

# What a job says, in the order of its numbers, behind what does it: addresses in bytes,
IN: Final = 1
"""What is pooled, or what a normalisation makes its gradient of: what it put out."""
OUT: Final = 2
"""What comes out, or its gradient, which comes in."""
D_IN: Final = 3
"""The gradient of what came in."""
STATISTICS: Final = 4
"""Of a normalisation, as its epsilon."""
EPS: Final = 5
# and sizes.
GROUPS: Final = 6
CHANNELS: Final = 7
HEIGHT: Final = 8
WIDTH: Final = 9
IMAGES: Final = 10
POOLED: Final = 11
"""What a pool puts out of a window: `pools.MAXIMUM` or another."""
SIDE: Final = 12
STRIDE: Final = 13
FIRST: Final = 14
"""The first channel."""
LAST: Final = 15
"""Behind the last."""


@compiled
def _values(job: Any, like: Any) -> tuple[Any, Any]:
    """What comes in, and what comes out."""
    planes = job[GROUPS] * job[CHANNELS] * LANES
    height, width, stride = job[HEIGHT], job[WIDTH], job[STRIDE]
    x = array_at(job[IN], like, planes * height * width)
    return x, array_at(job[OUT], like, planes * -(-height // stride) * -(-width // stride))


def _pool(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    x, y = _values(job, like)
    shape = job[GROUPS], job[CHANNELS], job[HEIGHT], job[WIDTH]
    pools.pool(x, y, job[POOLED], job[SIDE], job[STRIDE], shape, job[FIRST], job[LAST])


def _pool_backward(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    x, y = _values(job, like)
    d_x = array_at(job[D_IN], like, x.size)
    shape = job[GROUPS], job[CHANNELS], job[HEIGHT], job[WIDTH]
    pools.pool_backward(
        y, x, d_x, job[POOLED], job[SIDE], job[STRIDE], shape, job[FIRST], job[LAST]
    )


def _normalise(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    x, y = _values(job, like)
    statistics = array_at(job[STATISTICS], like, 2 * job[CHANNELS])
    eps = carray(doubles(job[EPS]), 1)[0]
    sizes = job[GROUPS], job[CHANNELS], job[HEIGHT] * job[WIDTH]
    pools.normalise(x, y, statistics, eps, job[IMAGES], sizes, job[FIRST], job[LAST])


def _normalise_backward(pointer: Any) -> None:
    job, like = integers_at(pointer, COLUMNS), carray(pointer, 1)
    x, y = _values(job, like)
    d_x = array_at(job[D_IN], like, x.size)
    statistics = array_at(job[STATISTICS], like, 2 * job[CHANNELS])
    eps = carray(doubles(job[EPS]), 1)[0]
    sizes = job[GROUPS], job[CHANNELS], job[HEIGHT] * job[WIDTH]
    pools.normalise_backward(y, x, d_x, statistics, eps, job[IMAGES], sizes, job[FIRST], job[LAST])


POOL: Final = Work(_pool)
POOL_BACKWARD: Final = Work(_pool_backward)
NORMALISE: Final = Work(_normalise)
NORMALISE_BACKWARD: Final = Work(_normalise_backward)
