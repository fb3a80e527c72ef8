"""Compiling all kernels of a CPU at the same time, before the first of them is called."""

import hashlib
import sys
from collections.abc import Sequence
from typing import Final

from llvmlite import binding

from search_core.relaxation import ahead
from search_core.relaxation.kernels import pool_jobs, sum_jobs
from search_core.relaxation.kernels.compiling import CACHE, KEEPS
from search_core.relaxation.kernels.jobs import Work

_ITEMSIZE: Final = 4
_WORKS: Final[dict[str, Work]] = {
    "backward": sum_jobs.BACKWARD,
    "forward": sum_jobs.FORWARD,
    "pool": pool_jobs.POOL,
    "pool_backward": pool_jobs.POOL_BACKWARD,
    "normalise": pool_jobs.NORMALISE,
    "normalise_backward": pool_jobs.NORMALISE_BACKWARD,
}
"""Half of the time goes into the first."""


def compile_ahead() -> None:
    """Compiles the kernels for single precision, unless that has been done on this machine.

    Where it cannot be done, they are compiled when they are called.
    """
    processor = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    note = CACHE / f"compiled-{hashlib.sha256(processor.encode()).hexdigest()[:16]}"
    # One process would do nothing that this one cannot do by itself.
    if not KEEPS or note.exists() or ahead.num_processes() == 1:
        return
    with ahead.alone_in(CACHE):
        if note.exists():
            return
        first, *others = _WORKS
        if ahead.run_all([ahead.Program(__name__, [first]), ahead.Program(__name__, others)]):
            note.touch()


def main(names: Sequence[str]) -> None:
    """Compiles kinds of work.

    Args:
        names: Theirs.
    """
    for name in names:
        _WORKS[name].address(_ITEMSIZE)


if __name__ == "__main__":
    main(sys.argv[1:])
