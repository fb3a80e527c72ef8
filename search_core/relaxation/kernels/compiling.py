"""How kernels are compiled: when first called, and kept on disk for the next process.

What Python calls is a `kernel`, what threads call by its address is `native`; what these call is
`compiled`, or `inlined` where it is large and called in one place; an `intrinsic` says which
instructions it becomes. Large ones are compiled before they are called (`ahead`).

Legend: l lanes, the images that one vector holds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import numba
from llvmlite import binding
from numba import extending

_Function = TypeVar("_Function", bound=Callable[..., Any])

_HERE: Final = Path(__file__).parent


def kernel(function: _Function) -> _Function:
    """Compiles a function for the types that Python calls it with.

    It lets go of the interpreter's lock, so that threads run side by side. What was compiled is
    kept in numba's cache, in a folder of its own for each state of these modules: numba alone would
    not see that a function of another module has changed. Where the folder cannot be written, it is
    compiled anew in every process.

    Args:
        function: Of arrays, numbers and tuples of them.
    """
    with _caching():
        made: _Function = numba.njit(nogil=True, cache=KEEPS, error_model="numpy")(function)
    return made


def compiled(function: _Function) -> _Function:
    """Compiles a function that kernels call, as a part of each of them.

    Args:
        function: As for `kernel`.
    """
    made: _Function = numba.njit(error_model="numpy", no_cfunc_wrapper=True)(function)
    return made


def inlined(function: _Function) -> _Function:
    """Makes a function a piece of the one that calls it, before that is optimised.

    What is called is optimised by itself, and again with whatever calls it, all the way up. So a
    large function that is called in one place is to be inlined: that halves the time to compile.

    Args:
        function: As for `kernel`.
    """
    made: _Function = numba.njit(error_model="numpy", inline="always")(function)
    return made


def native(kind: Any, function: Callable[..., Any]) -> Any:
    """Compiles a function that C code can call, by its `address`.

    Args:
        kind: Its signature.
        function: It lets go of nothing, and must not fail.
    """
    with _caching():
        return numba.cfunc(kind, cache=KEEPS, error_model="numpy")(function)


@contextmanager
def _caching() -> Iterator[None]:
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(CACHE)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of types, which returns a signature and a code generator, callable."""
    made: Callable[..., Any] = extending.intrinsic(function)
    return made


def _lanes() -> int:
    """As many single-precision numbers as a register holds, and no fewer than 8."""
    features = binding.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8


def _cache() -> Path:
    digest = hashlib.sha256()
    for source in sorted(_HERE.glob("*.py")):
        digest.update(source.read_bytes())
    chosen = numba.config.CACHE_DIR
    root = Path(chosen) if chosen else Path.home() / ".cache" / "dartboard"
    return root / f"kernels-{digest.hexdigest()[:16]}"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


CACHE: Final = _cache()
KEEPS: Final = _is_writable(CACHE)
"""Whether what was compiled can be kept; else every process compiles for itself."""

LANES: Final = _lanes()
"""Images that one vector holds."""
