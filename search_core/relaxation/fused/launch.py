"""How kernels see tensors, and how work is divided among their programs."""

from contextlib import AbstractContextManager
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS: Final = 1056
"""With about so many, eight on each processor of a large GPU, a reduction keeps it busy."""


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Launches kernels where a tensor is.

    Args:
        x: The tensor.
    """
    context: AbstractContextManager[object] = torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
    return context


def cast(x: Tensor) -> Tensor:
    """The tensor in what autocast wants convolutions to read.

    Args:
        x: A tensor of floating point numbers.
    """
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def refuse_second_derivative() -> None:
    """Called in a backward pass.

    Raises:
        RuntimeError: It is to be differentiated itself.
    """
    if torch.is_grad_enabled():
        # `once_differentiable` would say so only if nobody asked for chosen inputs' gradients.
        raise RuntimeError(
            "a fused relaxation has no second derivative; choose the relaxation 'plain'"
        )


def accumulator(x: Tensor) -> Any:
    """The type that a kernel computes in.

    Args:
        x: What it reads.
    """
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def statistics_dtype(x: Tensor) -> torch.dtype:
    """The type of sums over many values.

    Args:
        x: The values.
    """
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def splits(rows: int, values: int, block: int) -> tuple[int, int]:
    """How many programs share each row of a reduction, and how many values each of them has.

    Args:
        rows: Reductions that are made at once.
        values: Of each.
        block: Values that a program reads at a time; each has a multiple of it.
    """
    blocks = triton.cdiv(values, block)
    wanted = max(1, min(blocks, triton.cdiv(PROGRAMS, rows)))
    length = triton.cdiv(blocks, wanted) * block
    return triton.cdiv(values, length), length


def power_of_two(number: int, least: int, most: int) -> int:
    """The smallest power of two that is not less than a number, within bounds.

    Args:
        number: The number.
        least: A power of two.
        most: Another.
    """
    return int(min(max(triton.next_power_of_2(number), least), most))
