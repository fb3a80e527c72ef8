"""Compiling many kernels at the same time, before any of them is launched.

Triton compiles a kernel when it is launched for the first time, one after the other, a third of the
time in Python. Here it is asked which kernels some work would launch, and processes that need no
GPU compile them into Triton's cache, where the work finds them.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

_SECONDS: Final = 600
_NICENESS: Final = 10
"""Of processes that compile: other trials of the machine go on training meanwhile."""


class Wanted(NamedTuple):
    """A kernel for arguments of some types, and with some values of its constants.

    Attributes:
        module: Where the kernel is.
        name: Its name there.
        form: Triton's description of the types and values.
    """

    module: str
    name: str
    form: str


@contextmanager
def nothing_launched() -> Iterator[list[Wanted]]:
    """Notes each kernel that this process has not compiled, instead of launching it.

    What it would write stays as it was, so results have their sizes, and no values. No kernel takes
    an address from what another computes: those that are launched read and write nothing else than
    usual.

    Yields:
        The kernels, in the order in which they are asked for; complete at the end.
    """
    found: dict[Wanted, None] = {}
    kernels: list[Wanted] = []

    def note(*, fn: Any, **how: Any) -> bool:
        found[Wanted(fn.module, fn.name, how["compile"]["specialization_data"])] = None
        return True

    before = knobs.runtime.jit_cache_hook
    knobs.runtime.jit_cache_hook = note
    try:
        yield kernels
    finally:
        knobs.runtime.jit_cache_hook = before
        kernels.extend(found)


def toolchain() -> str:
    """What compiles kernels, and for which GPU."""
    return f"Triton {triton.__version__}, {driver.active.get_current_target()}"


@contextmanager
def alone_in_the_cache() -> Iterator[Path]:
    """Waits until no other process of this machine is in here: one at a time fills all cores.

    Yields:
        Where Triton keeps what it has compiled.
    """
    folder = Path(knobs.cache.dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dartboard.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed, or its process ends
        yield folder


def compile_all(kernels: Sequence[Wanted], num_processes: int) -> bool:
    """Compiles kernels for the GPU that this process uses.

    Args:
        kernels: What to compile; what is in Triton's cache already is not compiled again.
        num_processes: So many at the same time.

    Returns:
        Whether all were compiled. Those that were not are compiled when they are launched, which
        tells what is wrong with them.
    """
    num_processes = min(num_processes, len(kernels))
    shares = [kernels[first::num_processes] for first in range(num_processes)]
    with ThreadPoolExecutor(max(1, num_processes)) as threads:
        return all(threads.map(_compile_share, shares))


def _compile_share(kernels: Sequence[Wanted]) -> bool:
    target = driver.active.get_current_target()
    asked = {
        "target": [target.backend, target.arch, target.warp_size],
        "kernels": [list(kernel) for kernel in kernels],
    }
    try:
        run = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asked),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


class _Elsewhere:
    """A GPU that is not here, for which kernels are compiled, as Triton asks for the one that is.

    Args:
        target: The GPU.
    """

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_device(self) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def main() -> int:
    """Compiles what it reads.

    Returns:
        The exit code: 1 if any kernel could not be compiled.
    """
    os.nice(_NICENESS)
    asked = json.load(sys.stdin)
    driver.set_active(_Elsewhere(GPUTarget(*asked["target"])))
    num_failed = 0
    for kernel in (Wanted(*each) for each in asked["kernels"]):
        try:
            getattr(import_module(kernel.module), kernel.name).preload(kernel.form)
        except Exception as error:
            num_failed += 1
            sys.stderr.write(f"{kernel.name}: {error}\n")
    return min(num_failed, 1)


if __name__ == "__main__":
    sys.exit(main())
