"""Memory in which sums are computed."""

import threading
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from search_core.relaxation.lanes import Numbers

_LINE: Final = 64
"""Bytes of a line of the cache."""

_thread = threading.local()


def large_pages(size: int, dtype: Any) -> Tensor:
    """So many numbers, in large pages, where no vector lies in two lines of the cache.

    Args:
        size: How many.
        dtype: NumPy's type of them.
    """
    # NumPy asks for large pages, and PyTorch does not, but its memory begins 16 bytes into a line.
    spare = _LINE // dtype.itemsize
    numbers = np.empty(size + spare, dtype)
    first = -numbers.ctypes.data % _LINE // dtype.itemsize
    return torch.from_numpy(numbers[first : first + size])


def buffer(name: str, size: int, like: Tensor) -> Numbers:
    """Memory of this thread for what is not needed for long.

    Args:
        name: What for; what is asked for by the same name is the same memory.
        size: How many numbers.
        like: A tensor of their type.
    """
    buffers: dict[Any, Numbers] = _thread.__dict__.setdefault("buffers", {})
    known = buffers.get((name, like.dtype))
    if known is None or known.size < size:
        known = buffers[name, like.dtype] = like.new_empty(size).numpy()
    return known[:size]
