"""How fast a run goes and what it occupies, as metrics."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

OF_THE_MACHINE: Final = frozenset(
    {"seconds", "steps_per_second", "images_per_second", "peak_memory_bytes"}
)
"""Metrics that say how a run went on its machine."""

# Linux's, of this process: the first has the largest resident set, which a 5 to the second resets.
_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")


def reproducible(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those metrics that another run of the same spec and seed has too, on a CPU to the bit.

    Args:
        metrics: Of an epoch.
    """
    return {name: value for name, value in metrics.items() if name not in OF_THE_MACHINE}


def pace(
    *, steps: int, batch_size: int, seconds: float, device: torch.device | str
) -> dict[str, float]:
    """The figures of an epoch.

    Args:
        steps: Steps of the optimizers.
        batch_size: Images of the weights' batch of a step; those of the alphas' do not count.
        seconds: What the steps took together, without measuring.
        device: Where the network is.

    Returns:
        `steps_per_second`, `images_per_second` and `peak_memory_bytes`.
    """
    steps_per_second = steps / max(seconds, sys.float_info.epsilon)
    return {
        "steps_per_second": steps_per_second,
        "images_per_second": steps_per_second * batch_size,
        "peak_memory_bytes": float(peak_memory(torch.device(device))),
    }


def peak_memory(device: torch.device) -> int:
    """The most that this process has held since `reset_peak_memory`, or ever, in bytes.

    Args:
        device: A GPU, whose memory in use by tensors is told, or the CPU: the resident set of the
            whole process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        # Not `getrusage`, whose maximum a process inherits from the one that started it.
        [peak] = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(peak.split()[1]) * 2**10
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 2**10


def reset_peak_memory(device: torch.device) -> None:
    """Makes `peak_memory` count from what this process holds now, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # no Linux
        _CLEAR_REFS.write_text("5")
