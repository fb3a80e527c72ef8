"""How much memory there is: of the machine, or of the control group that a container gives us.

A container sees the whole machine's memory in `/proc/meminfo` and is killed at its own limit, which
only the files of its control group tell (Linux's cgroup v1 and v2).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from search_core.cuboid_size import searched_size
from search_core.spec import SearchSpec

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_GIB: Final = 2**30


class NotEnoughMemoryError(MemoryError):
    """A network would not fit; the message has both numbers."""


@dataclass(frozen=True)
class _Files:
    """Where a version of control groups keeps its numbers."""

    limit: str
    used: str
    reclaimable: str


_V1: Final = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2: Final = _Files("memory.max", "memory.current", "inactive_file")


def total() -> int:
    """Bytes that the processes of this machine, or of this container, may use together."""
    limits = [limit for limit, _ in _limits(_CGROUPS, _MEMBERSHIP)]
    return min([int(psutil.virtual_memory().total), *limits])


def available() -> int:
    """Bytes that this process may still take without swapping or being killed."""
    left = [max(0, limit - used) for limit, used in _limits(_CGROUPS, _MEMBERSHIP)]
    return min([int(psutil.virtual_memory().available), *left])


def check(spec: SearchSpec, free: int, place: str, *, num_stacked: int = 1) -> None:
    """Refuses a search whose network would not fit, before it is built.

    Args:
        spec: The search. Only the size of a HyperCuboid is known beforehand.
        free: Bytes that are free.
        place: Where they are, for the message.
        num_stacked: Seeds that train in one process.

    Raises:
        NotEnoughMemoryError: It would not fit.
    """
    size = searched_size(spec, num_stacked)
    if size is None:
        return
    needed = size.training_bytes
    if needed > free:
        raise NotEnoughMemoryError(
            f"Training this cuboid{_for(num_stacked)} takes an estimated {needed / _GIB:.1f} GiB, "
            f"and {place} has {free / _GIB:.1f} GiB free."
        )


def _for(num_stacked: int) -> str:
    return f" for {num_stacked} stacked seeds" if num_stacked > 1 else ""


def _limits(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Limit, and what is used and cannot be reclaimed, of each control group we are in."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _ancestors(root, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _ancestors(root / "memory", path, _V1)


def _ancestors(root: Path, path: str, files: _Files) -> Iterator[tuple[int, int]]:
    # Inside a container the path may be the host's, which is not there; then the root is ours.
    inside = root / path.lstrip("/")
    for folder in (inside, *inside.parents):
        if not folder.is_relative_to(root):
            return
        try:
            limit = int((folder / files.limit).read_text())
            used = int((folder / files.used).read_text())
            statistics = (folder / "memory.stat").read_text().split()
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
        values = dict(zip(statistics[::2], statistics[1::2], strict=False))
        # Pages of files count as used, and are given up when somebody needs the room.
        yield limit, used - int(values.get(files.reclaimable, 0))
