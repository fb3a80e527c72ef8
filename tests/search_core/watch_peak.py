"""Takes memory and gives it back, and looks at the peak that the process is said to have had."""

import psutil
import torch

from search_core.pace import peak_memory, reset_peak_memory

CPU = torch.device("cpu")
_EXACTNESS = 2**22  # Linux adds up what its cores have counted, roughly


def main() -> None:
    """Does so, and raises where the peak is another one."""
    now = psutil.Process().memory_info().rss
    assert peak_memory(CPU) > now - _EXACTNESS
    # More than there has been, with every page written to.
    large = torch.ones(peak_memory(CPU) - now + 2**26, dtype=torch.uint8)
    peak = peak_memory(CPU)
    assert now + 2**25 < peak < now + large.numel() + 2**28, (now, peak)
    del large
    assert peak_memory(CPU) > peak - _EXACTNESS
    reset_peak_memory(CPU)
    assert peak_memory(CPU) < peak - 2**24, peak


if __name__ == "__main__":
    main()
