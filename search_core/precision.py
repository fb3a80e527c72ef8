"""What convolutions and linear layers compute in; weights and optimizers stay in float32.

Legend: n images, c channels, h height, w width, k classes.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_FIRST_WITH_TF32: Final = (8, 0)
"""The compute capability of NVIDIA's Ampere."""


def computing_in(precision: str, device_type: str) -> AbstractContextManager[Any]:
    """Lets what is inside compute in a precision.

    Args:
        precision: `float32`, which changes nothing, `bfloat16` or `float16`.
        device_type: Where it is computed.
    """
    dtype = _DTYPES.get(precision)
    if dtype is None:
        return nullcontext()
    # Each weight is cast once in a pass. A cache of casts would only outlive the passes of a
    # captured step, which must not hold what they leave behind.
    return torch.autocast(device_type, dtype=dtype, cache_enabled=False)


def rounds_to_tf32(device: torch.device) -> bool:
    """Whether convolutions in float32 round what they multiply to TF32.

    By default they do, on a GPU that has units for it, unless PyTorch is told otherwise
    (`torch.backends.cudnn`), or NVIDIA's libraries are (`NVIDIA_TF32_OVERRIDE=0`).

    Args:
        device: Where they are computed.
    """
    if device.type != "cuda" or not _has_tf32(device):
        return False
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return bool(convolutions.fp32_precision == "tf32")


@cache
def _has_tf32(device: torch.device) -> bool:
    return (
        os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
        and torch.cuda.get_device_capability(device) >= _FIRST_WITH_TF32
    )


def in_full(device: torch.device) -> AbstractContextManager[None]:
    """Lets convolutions in float32 be computed in full inside, and not rounded to TF32.

    Args:
        device: Where they are computed.
    """
    if not rounds_to_tf32(device):
        return nullcontext()
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return flags


def logits(forward: Callable[[Tensor], Tensor], x_nchw: Tensor, precision: str) -> Tensor:
    """A forward pass in a precision, for a loss that is computed in float32.

    Args:
        forward: From images to logits [n, k].
        x_nchw: The images.
        precision: As for `computing_in`.

    Returns:
        The logits [n, k]; those of a lower precision as float32.
    """
    if precision not in _DTYPES:
        return forward(x_nchw)
    with computing_in(precision, x_nchw.device.type):
        logits_nk = forward(x_nchw)
    return logits_nk.float()
