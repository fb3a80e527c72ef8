"""Compiling many kernels at the same time, before any of them is launched.

Triton compiles a kernel when it is launched for the first time, one after the other, a third of the
time in Python. Here it is asked which kernels some work would launch, and processes that need no
GPU compile them into Triton's cache, where the work finds them.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from search_core.relaxation import processes


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
    usual. It is so in all threads: no other one may launch anything meanwhile.

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


def cache() -> Path:
    """Where Triton keeps what it has compiled."""
    return Path(knobs.cache.dir)


def compile_all(kernels: Sequence[Wanted]) -> bool:
    """Compiles kernels for the GPU that this process uses.

    Args:
        kernels: What to compile; what is in Triton's cache already is not compiled again.

    Returns:
        Whether all were compiled. Those that were not are compiled when they are launched, which
        tells what is wrong with them.
    """
    if not kernels:
        return True
    target = driver.active.get_current_target()
    num_shares = min(processes.most_at_once(), len(kernels))
    return processes.run_all(
        [
            processes.Command(
                __name__,
                reads=json.dumps(
                    {
                        "target": [target.backend, target.arch, target.warp_size],
                        "kernels": kernels[first::num_shares],
                    }
                ),
            )
            for first in range(num_shares)
        ]
    )


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
    asked = json.load(sys.stdin)
    driver.set_active(_Elsewhere(GPUTarget(*asked["target"])))
    num_failed = 0
    for kernel in processes.while_parent_lives(Wanted(*each) for each in asked["kernels"]):
        try:
            getattr(import_module(kernel.module), kernel.name).preload(kernel.form)
        except Exception as error:
            num_failed += 1
            sys.stderr.write(f"{kernel.name}: {error}\n")
    return min(num_failed, 1)


if __name__ == "__main__":
    sys.exit(main())
