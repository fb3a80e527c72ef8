"""Compiles every kernel for GPUs that need not be there, and prints which.

A program of its own, because in one process Triton either compiles or interprets.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES: Final = (80, 90)
"""Ampere's and Hopper's."""

_IMAGES: Final = ("x", "y", "d_x", "d_y")
_NUMBERS: Final = ("weight", "partial", "measured", "deviation", "mean", "scale", "shift", "sums")


def forms(modules: dict[str, ModuleType], images: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each kernel with values of its constants."""
    depthwise, pointwise, normalisation = modules.values()
    acc = {"acc": tl.float32}
    for size, stride in ((3, 1), (5, 2)):
        slide = {"kernel": size, "stride": stride, "dilation": 2, **acc}
        tile = {**slide, "block_of_channels": 4, "block": 64}
        yield depthwise._forward, tile
        yield depthwise._backward, {**tile, "add": stride == 1}
        yield depthwise._backward_of_weight, {**slide, "block": 128}
    product = {
        "block_of_outs": 64,
        "block_of_ins": 32,
        "block": 64,
        "precision": "tf32x3" if images == "fp32" else "ieee",
        **acc,
    }
    yield pointwise._product, product
    yield pointwise._product_of_weight, product
    sizes = {"block": 512, **acc}
    yield normalisation._measure, sizes
    yield normalisation._conclude, sizes
    follows = {"has_scale": True, "has_shift": True, "rectify": True, **sizes}
    yield normalisation._apply, follows
    yield normalisation._measure_backward, follows
    yield normalisation._apply_backward, follows


def compile_for(architecture: int, kernel: Any, constants: dict[str, Any], images: str) -> None:
    """Compiles a kernel down to machine code."""

    def type_of(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in _IMAGES:
            return f"*{images}"
        if name in _NUMBERS:
            return "*fp32"
        return "fp32" if name == "eps" else "i32"

    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: type_of(name) for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {},
    )
    assert triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"]


def main() -> None:
    """Compiles them all."""
    package = "search_core.relaxation.fused"
    modules = {
        name: import_module(f"{package}.{name}")
        for name in ("depthwise", "pointwise", "normalisation")
    }
    written = {
        each
        for module in modules.values()
        for each in vars(module).values()
        if isinstance(each, triton.JITFunction)
    }
    for architecture in ARCHITECTURES:
        for images in ("fp32", "bf16"):
            compiled = set()
            for kernel, constants in forms(modules, images):
                compile_for(architecture, kernel, constants, images)
                compiled.add(kernel)
                sys.stdout.write(f"{kernel.__name__} {architecture} {images}\n")
            assert compiled == written


if __name__ == "__main__":
    main()
