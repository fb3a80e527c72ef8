"""The kernels of a GPU one by one, beside the time of reading or writing such a tensor once.

    python -m benchmarks.gpu_kernels

times what a grouped plan consists of on operations side by side, at the three sizes that the cells
of a network have. A gradient's time is that of a forward and a backward pass, less the forward's.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.steps import machine
from search_core.relaxation.arithmetic import Arithmetic
from search_core.relaxation.stacks import whole
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import Kernels, Slide

SIZES: Final = ((16, 32), (32, 16), (64, 8))
"""Channels of an operation, and pixels along a side."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all of them.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    options = _parse(arguments)
    found = machine(options.device)
    print(f"{found['machine']}, PyTorch {found['torch']}, {options.dtype}, microseconds\n")
    print("| kernel | channels | pixels | forward | of the input | of the weights | one pass |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for channels, side in SIZES:
        for row in _rows(channels, side, options):
            print(row, flush=True)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_kernels", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--operations", type=int, default=14, help="side by side")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--torch", action="store_true", help="PyTorch's operations in their place")
    parser.add_argument("--repeats", type=int, default=20)
    return parser.parse_args(arguments)


def _arithmetic(options: argparse.Namespace) -> Arithmetic:
    if options.torch:
        return TorchArithmetic()
    from search_core.relaxation import fused

    return fused


def _rows(channels: int, side: int, options: argparse.Namespace) -> Iterator[str]:
    arithmetic = _arithmetic(options)
    device = torch.device(options.device)
    dtype: torch.dtype = getattr(torch, options.dtype)
    k = options.operations

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype, requires_grad=True)

    x_nkchw = draw(options.batch, k, channels, side, side)
    copied = torch.empty_like(x_nkchw)
    once = _microseconds(lambda: copied.copy_(x_nkchw.detach()), options) / 2

    def convolve(taps: Tensor, dilation: int) -> Tensor:
        return arithmetic.convolve([Slide(whole(x_nkchw), Kernels(taps, 1, dilation))], factors)

    def normalise(**follows: Any) -> Tensor:
        return arithmetic.normalise(x_nkchw, scale_kc, None, eps=1e-5, **follows)[0]

    factors = draw(k, channels, channels)
    scale_kc = torch.randn(k, channels, device=device, requires_grad=True)
    works: list[tuple[str, Callable[[], Tensor], Tensor]] = []
    for kernel, dilation in ((3, 1), (5, 1), (3, 2), (5, 2)):
        taps = draw(k * channels, 1, kernel, kernel)
        name = f"separable {kernel}x{kernel}, dilation {dilation}"
        works.append((name, partial(convolve, taps, dilation), taps))
    works += [
        ("pointwise", partial(arithmetic.multiply, x_nkchw, factors), factors),
        ("normalisation and ReLU", partial(normalise, rectify=True), scale_kc),
        ("normalisation and sum", partial(normalise, sums=(tuple(range(k)),)), scale_kc),
    ]
    for name, work, weight in works:
        forward = _microseconds(work, options)
        of_input, of_weight = (
            _microseconds(partial(_differentiated, work, of), options) - forward
            for of in (x_nkchw, weight)
        )
        yield (
            f"| {name} | {channels} | {side}x{side} | {forward:.0f} | {of_input:.0f} | "
            f"{of_weight:.0f} | {once:.1f} |"
        )


def _differentiated(work: Callable[[], Tensor], of: Tensor) -> None:
    y = work()
    torch.autograd.grad(y, of, torch.ones_like(y))


def _microseconds(work: Callable[[], object], options: argparse.Namespace) -> float:
    """The time of one call; on a GPU without its launch, which a graph makes."""
    if torch.device(options.device).type != "cuda":
        work()
        started = time.perf_counter()
        for _ in range(options.repeats):
            work()
        seconds = time.perf_counter() - started
        return seconds / float(options.repeats) * 1e6
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(options.repeats):
                work()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        graph.replay()
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / float(options.repeats) * 1e3


if __name__ == "__main__":
    sys.exit(main())
