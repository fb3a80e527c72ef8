"""Independent pieces of work side by side, on as many threads as PyTorch may use.

Kernels let go of the interpreter's lock. Which thread does what depends on the pieces alone, so
that sums are always added up in the same order and two runs give the same bits.

PyTorch computes large tensors on several threads by itself, with OpenMP. It must not do so on the
threads here: OpenMP would then know of more threads than there are cores, and let all of them sleep
whenever they wait, which makes PyTorch's own operations two to three times slower for good.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

_Key = TypeVar("_Key", bound=Hashable)
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def shares(costs: Sequence[float]) -> list[list[int]]:
    """Shares out pieces of work, so that every thread has about as much to do.

    Args:
        costs: What each piece costs, in any unit.

    Returns:
        The indices of each thread's pieces, ascending; no share is empty.
    """
    threads = min(torch.get_num_threads(), len(costs))
    found: list[list[int]] = [[] for _ in range(threads)]
    loads = [0.0] * threads
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = loads.index(min(loads))
        found[least].append(index)
        loads[least] += costs[index]
    return [sorted(share) for share in found]


def each(function: Callable[[_Task], _Result], tasks: Sequence[_Task]) -> list[_Result]:
    """Calls a function with each task at the same time, with the first one on this thread.

    Args:
        function: What is called. It calls kernels, and none of PyTorch's operations.
        tasks: As many as threads.

    Returns:
        What the calls returned.
    """

    first, *others = tasks
    futures = [_pool(len(others)).submit(function, task) for task in others]
    return [function(first), *(future.result() for future in futures)]


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
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="relaxation")
