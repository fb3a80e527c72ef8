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

_IMAGES: Final = (
    "x", "y", "d_x", "d_y", "base", "rectified", "pooled", "d_same", "d_rectified", "d_pooled",
)  # fmt: skip
_NUMBERS: Final = (
    "weight", "weights", "partial", "measured", "deviation", "mean", "scale", "shift", "factor",
    "d_scale", "d_shift", "d_factor",
)  # fmt: skip
_FEATURES: Final = 3
_TABLES: Final = ("members", "sum_of")
_ALIGNED: Final = 16


def forms(modules: dict[str, ModuleType], images: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each kernel with values of its constants."""
    adding, depthwise, pointwise, norm_kernels, mixing, parts, reading = modules.values()
    acc = {"acc": tl.float32}
    for size, stride in ((3, 1), (5, 2)):
        slide = {"kernel": size, "stride": stride, "dilation": 2, **acc}
        tile = {**slide, "block_of_images": 4, "columns": 32}
        in_strips = {**tile, "phases": 2 // stride, "unrolled": 4}
        yield depthwise._slide, {**in_strips, "flip": stride == 1, "adds": stride == 1}
        yield depthwise._spread, {**tile, "unrolled": 2}
        yield depthwise._weigh, in_strips
    for precision in ("tf32", "tf32x3") if images == "fp32" else ("ieee",):
        product = {
            "block_of_outs": 64,
            "block_of_ins": 32,
            "block": 64,
            "precision": precision,
            "pixels": 64,
            **acc,
        }
        yield pointwise._product, product
        yield pointwise._product_of_weight, product
    sizes = {"block": 512, **acc}
    yield norm_kernels.measure, {"pixels": 35, **sizes}
    yield norm_kernels.conclude, sizes
    follows = {"has_scale": True, "has_shift": True, "rectify": True, "sums": True, "pixels": 64}
    affine = {"has_scale": True, "has_shift": True, "has_factor": True}
    yield norm_kernels.of_affine, {**affine, "at_once": 16, "block": 64, **acc}
    applied = {"channels": 16, "has_base": True, "has_factor": True, **sizes}
    yield norm_kernels.apply, {**follows, **applied, "given": 0, "is_known": False}
    yield norm_kernels.apply, {**follows, **applied, "given": 2, "is_known": True}
    follows |= {"channels_of_operation": 16, **sizes}
    yield norm_kernels.measure_backward, follows
    yield norm_kernels.apply_backward, {**follows, "most_parts": 8, "has_factor": True}
    counts = {"num_features": _FEATURES, "num_sums": 2, **sizes}
    yield mixing._mix, {**counts, "has_base": True}
    yield mixing._part, counts
    yield mixing._compare, counts
    yield adding._add, {"number": _FEATURES, **sizes}
    yield parts._total, {"number": _FEATURES, "at_once": 16, "block": 64, **acc}
    # A maximum and both averages, and none.
    for pools, kinds in ((3, 0b100100), (0, 0)):
        window = {"side": 3, "stride": 2, "planes": 3, "pools": pools, "kinds": kinds, **sizes}
        window |= {"in_h": 8, "in_w": 7, "out_h": 4, "out_w": 4, "rectifies": True}
        yield reading._read, window
        yield reading._read_backward, {**window, "has_same": True}
        yield reading._read, {**window, "chosen": None}


def type_of(kernel: Any, name: str, images: str) -> str | tuple[str, ...]:
    """Of an argument that is no constant."""
    if name in ("features", "d_features", "tensors"):
        return (f"*{images}",) * _FEATURES
    if kernel.__name__ == "_total" and name in ("partials", "totals"):
        return ("*fp32",) * _FEATURES
    if name == "strides" or (kernel.__name__ == "_total" and name in ("parts", "counts")):
        return ("i32",) * _FEATURES
    if name in _TABLES:
        return "*i32"
    if name == "chosen":
        return "*u8"
    if name in _IMAGES:
        return f"*{images}"
    if name in _NUMBERS:
        return "*fp32"
    return "fp32" if name == "eps" else "i32"


def compile_for(
    architecture: int, kernel: Any, constants: dict[str, Any], images: str, special: int | None
) -> None:
    """Compiles a kernel down to machine code.

    Args:
        architecture: The GPU's.
        kernel: The kernel.
        constants: Values by name.
        images: Their type.
        special: Numbers and addresses are what Triton compiles kernels anew for: numbers are 1, or
            both are multiples of 16; None leaves them any.
    """
    signature: dict[str, Any] = {}
    values: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for parameter in kernel.params:
        place, name = (parameter.num,), parameter.name
        if name in constants:
            signature[name], values[place] = "constexpr", constants[name]
            continue
        given = type_of(kernel, name, images)
        together = isinstance(given, tuple)
        types = list(given) if isinstance(given, tuple) else [given]
        for index, each in enumerate(types):
            at = (*place, index) if together else place
            is_number = each == "i32"
            if each == "fp32" or (is_number and parameter.do_not_specialize):
                continue
            if special == 1 and is_number:
                types[index], values[at] = "constexpr", 1
            elif special == _ALIGNED:
                attributes[at] = [["tt.divisibility", _ALIGNED]]
        signature[name] = tuple(types) if together else types[0]
    source = ASTSource(kernel, signature, values, attributes)
    assert triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"]


def main() -> None:
    """Compiles them all."""
    package = "search_core.relaxation.fused"
    modules = {
        name: import_module(f"{package}.{name}")
        for name in (
            "adding",
            "depthwise",
            "pointwise",
            "norm_kernels",
            "mixing",
            "parts",
            "reading",
        )
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
                # What one of them makes of a kernel, the other does.
                is_last = architecture == ARCHITECTURES[-1]
                for special in (None, 1, _ALIGNED) if is_last else (None,):
                    compile_for(architecture, kernel, constants, images, special)
                compiled.add(kernel)
                sys.stdout.write(f"{kernel.__name__} {architecture} {images}\n")
            assert compiled == written


if __name__ == "__main__":
    main()
