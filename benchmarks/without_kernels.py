"""Networks planned as on a GPU, computed without one: results have their sizes, and no values."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final
from unittest import mock

_FUSED: Final = "search_core.relaxation.fused"
_PLANNED: Final = "search_core.relaxation"


@contextmanager
def left_out(called: Callable[[str], None] | None = None) -> Iterator[None]:
    """Computes grouped plans as on a GPU, whose kernels are not called.

    Args:
        called: Told the name of each kernel that would be launched.
    """
    from triton.runtime import KernelInterface

    fused = import_module(_FUSED)
    patches: list[Any] = [
        mock.patch.object(module, name, _NoKernel(name, called))
        for module in vars(fused).values()
        if isinstance(module, ModuleType) and module.__name__.startswith(_FUSED)
        for name, kernel in vars(module).items()
        if isinstance(kernel, KernelInterface)
    ]
    patches += [
        mock.patch(f"{_PLANNED}.{module}.arithmetic_for", return_value=fused)
        for module in ("grouped", "sharing", "stages")
    ]
    patches.append(mock.patch(f"{_PLANNED}.adjacent.is_movable", return_value=True))
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


class _NoKernel:
    def __init__(self, name: str, called: Callable[[str], None] | None) -> None:
        self._name = name
        self._called = called

    def __getitem__(self, grid: object) -> Any:
        def launch(*_: object, **__: object) -> None:
            if self._called is not None:
                self._called(self._name)

        return launch
