"""Some channels of a pool or a normalisation as a job; see `jobs`."""

from typing import Any, Final

from numba import carray

from search_core.relaxation.kernels import pools
from search_core.relaxation.kernels.compiling import LANES, compiled
from search_core.relaxation.kernels.memory import array_at, doubles

KIND: Final = 0
"""What is to be done; 0 and 1 are sums."""
POOL: Final = 2
POOL_BACKWARD: Final = 3
NORMALISE: Final = 4
NORMALISE_BACKWARD: Final = 5

# What a job says, in the order of its numbers, behind what is to be done: addresses in bytes,
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
COLUMNS: Final = 16


@compiled
def do(job: Any, like: Any) -> None:
    """Does a job.

    Args:
        job: Its numbers.
        like: An array of the type of all tensors.
    """
    groups, channels, height, width = job[GROUPS], job[CHANNELS], job[HEIGHT], job[WIDTH]
    stride, first, last = job[STRIDE], job[FIRST], job[LAST]
    planes = groups * channels * LANES
    x = array_at(job[IN], like, planes * height * width)
    y = array_at(job[OUT], like, planes * -(-height // stride) * -(-width // stride))
    shape = groups, channels, height, width
    if job[KIND] == POOL:
        pools.pool(x, y, job[POOLED], job[SIDE], stride, shape, first, last)
        return
    if job[KIND] == POOL_BACKWARD:
        d_x = array_at(job[D_IN], like, x.size)
        pools.pool_backward(y, x, d_x, job[POOLED], job[SIDE], stride, shape, first, last)
        return
    statistics, eps = array_at(job[STATISTICS], like, 2 * channels), carray(doubles(job[EPS]), 1)[0]
    sizes = groups, channels, height * width
    if job[KIND] == NORMALISE:
        pools.normalise(x, y, statistics, eps, job[IMAGES], sizes, first, last)
        return
    d_x = array_at(job[D_IN], like, x.size)
    pools.normalise_backward(y, x, d_x, statistics, eps, job[IMAGES], sizes, first, last)
