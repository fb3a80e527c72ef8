"""Independent pieces of work side by side, on as many threads as PyTorch may use.

Kernels let go of the interpreter's lock. Which thread does what depends on the pieces alone, so
that sums are always added up in the same order and two runs give the same bits.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


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


def run(pieces: Sequence[Callable[[], None]], costs: Sequence[float]) -> None:
    """Does pieces of work side by side.

    Args:
        pieces: The pieces; none may need another.
        costs: What each costs, in any unit.
    """

    def work(share: Sequence[int]) -> None:
        for index in share:
            pieces[index]()

    together([lambda share=share: work(share) for share in shares(costs)])


def together(tasks: Sequence[Callable[[], None]]) -> None:
    """Runs tasks at the same time, the first one on this thread.

    Args:
        tasks: As many as threads.
    """
    if not tasks:
        return
    first, *others = tasks
    futures = [_pool(len(others)).submit(_without_gradients, task) for task in others]
    first()
    for future in futures:
        future.result()


def _without_gradients(task: Callable[[], None]) -> None:
    with torch.no_grad():
        task()


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="relaxation")
