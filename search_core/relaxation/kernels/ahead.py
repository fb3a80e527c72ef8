"""Compiling a CPU's large kernels at the same time, before the first of them is called."""

import hashlib
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import llvmlite
import numba
from llvmlite import binding

from search_core.relaxation import processes
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
_SLOWEST: Final = "backward"
"""It takes as long as all others together."""


def compile_for_cpu() -> None:
    """Compiles the large kernels for single precision, once on each machine.

    What could not be compiled is compiled when it is called, and so are the small ones.

    Raises:
        OSError: The cache cannot be used.
        TimeoutError: Another process has compiled for minutes.
    """
    note = CACHE / f"tried-{_identity()}"
    if not KEEPS or note.exists():
        return
    with processes.alone_in(CACHE):
        if note.exists():
            return
        shares = [[_SLOWEST], [name for name in _WORKS if name != _SLOWEST]]
        if processes.most_at_once() == 1:
            shares = [[*_WORKS]]
        processes.run_all([processes.Command(__name__, names) for names in shares])
        note.touch()  # also if one failed: the next search would fare no better


def _identity() -> str:
    """Of what numba looks for in its cache; of these modules' sources it is the folder."""
    said = (
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        numba.__version__,
        llvmlite.__version__,
        platform.python_version(),
        str(Path(__file__).resolve().parent),
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def main(names: Sequence[str]) -> None:
    """Compiles kinds of work.

    Args:
        names: Theirs.
    """
    for name in processes.while_parent_lives(names):
        _WORKS[name].address(_ITEMSIZE)


if __name__ == "__main__":
    main(sys.argv[1:])
