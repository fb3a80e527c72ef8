"""Kernels that do not wait for each other, in a step that is being captured.

Many kernels of a step are too small to keep a GPU busy, and each waits for the one before, whether
it reads what that one wrote or not. A captured step knows what has to wait for what: tasks that are
captured on streams of their own run at the same time when it is repeated. Launched one by one they
would gain nothing, since the GPU waits for launches then, so that they stay on one stream.

PyTorch gives memory that a task no longer needs to whoever asks next on the stream that it was made
on, and trusts that the others have been waited for. So whatever tasks read was made before them,
and is held by whoever runs them until all of them are waited for; what a task makes and drops by
itself stays on its own stream.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

import torch

ResultT = TypeVar("ResultT")

_STREAMS: Final = 4
"""Each keeps memory of its own."""


class Task(NamedTuple, Generic[ResultT]):
    """Something to do, which does not depend on what else is to do.

    Attributes:
        work: Does it on the current stream. It holds what it reads.
        cost: About how much there is to do, in a unit that tasks have in common.
    """

    work: Callable[[], ResultT]
    cost: int = 1


def at_once(tasks: Sequence[Task[ResultT]]) -> list[ResultT]:
    """Does tasks, at the same time where a GPU may.

    Args:
        tasks: The tasks.

    Returns:
        What each of them returned.
    """
    if len(tasks) == 1 or not _may_part():
        return [task.work() for task in tasks]
    whole = torch.cuda.current_stream()
    streams = _streams(whole.device)[: len(tasks)]
    for stream in streams:
        stream.wait_stream(whole)
    loads = [0] * len(streams)
    results: dict[int, ResultT] = {}
    try:
        # The largest first, each where there is the least to do.
        for index in sorted(range(len(tasks)), key=lambda each: -tasks[each].cost):
            which = loads.index(min(loads))
            loads[which] += tasks[index].cost
            with torch.cuda.stream(streams[which]):
                results[index] = tasks[index].work()
    finally:
        for stream in streams:
            whole.wait_stream(stream)
    return [results[index] for index in range(len(tasks))]


def in_turn(tasks: Sequence[Task[Any]]) -> Task[Any]:
    """Tasks of which each waits for the one before, as one.

    Args:
        tasks: The tasks.
    """

    def work() -> None:
        for task in tasks:
            task.work()

    return Task(work, sum(task.cost for task in tasks))


def _may_part() -> bool:
    """Whether the current stream is being captured, and is none of those that tasks have."""
    if not torch.cuda.is_available() or not torch.cuda.is_current_stream_capturing():
        return False
    current = torch.cuda.current_stream()
    return current not in _streams(current.device)


@cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    """The same for all work: libraries keep a workspace for each that they see."""
    return [torch.cuda.Stream(device) for _ in range(_STREAMS)]  # type: ignore[no-untyped-call]
