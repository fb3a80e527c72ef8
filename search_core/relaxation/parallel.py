"""Independent pieces of work side by side, on the threads that PyTorch computes on.

They are OpenMP's. Threads of our own would compete with them for the cores: those spin while they
wait, and once it knows of more threads than there are cores, as when PyTorch computes on one of
ours, it lets all of them sleep whenever they wait, which makes PyTorch's operations two to three
times slower for good.

Which piece is computed together with which depends on the pieces alone, so that sums are always
added up in the same order and two runs give the same bits.
"""

import ctypes
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

_Key = TypeVar("_Key", bound=Hashable)


def shares(costs: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
    """Shares out pieces of work, so that every thread has about as much to do.

    Args:
        costs: What each piece costs, in any unit.

    Returns:
        The indices of each thread's pieces, ascending; no share is empty.
    """
    return _shares(costs, min(torch.get_num_threads(), len(costs)))


@lru_cache(maxsize=4096)
def _shares(costs: tuple[float, ...], threads: int) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in range(threads)]
    loads = [0.0] * threads
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = loads.index(min(loads))
        found[least].append(index)
        loads[least] += costs[index]
    return tuple(tuple(sorted(share)) for share in found)


def run(worker: int, jobs: Sequence[int], count: int) -> None:
    """Has jobs done, each by one thread.

    Args:
        worker: The address of a function that takes jobs from a board until there are none left.
        jobs: The numbers of all jobs, one job behind the other.
        count: How many jobs there are.
    """
    board = np.array([0, count, *jobs], np.int64)
    openmp = _openmp()
    if openmp is None or count == 1:
        _callable(worker)(board.ctypes.data)
    else:
        # As many as PyTorch uses, since a team of another size would be put together anew.
        openmp(worker, board.ctypes.data, torch.get_num_threads(), 0)


def added(parts: Sequence[dict[_Key, Tensor]]) -> dict[_Key, Tensor]:
    """The sums of tensors by their keys, in place of the first ones.

    Args:
        parts: In the order in which they are added.
    """
    total: dict[_Key, Tensor] = {}
    for part in parts:
        for key, value in part.items():
            if key in total:
                total[key] += value
            else:
                total[key] = value
    return total


@lru_cache
def _callable(worker: int) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(worker)


@lru_cache
def _openmp() -> Any:
    """GNU OpenMP's function that runs another on a team of threads; None where PyTorch has none."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        function = ctypes.CDLL(str(library)).GOMP_parallel
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None
