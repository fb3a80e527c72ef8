"""Random streams, all made from a trial's seed. Nothing draws from PyTorch's global generator."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose, whose draws no other purpose shifts.

    Args:
        seed: The trial's seed.
        purpose: What the numbers are for, such as "weights".

    Returns:
        A generator whose state depends on the seed and the purpose only.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    # 63 bits: manual_seed reads a signed 64-bit integer.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def layers_drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Lets the layers built inside draw their initial weights from a generator.

    PyTorch's layers know the global CPU generator only. It is lent for the duration and put back,
    so the caller's random numbers stay what they were.

    Args:
        generator: A CPU generator; it moves on by what the layers draw.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())
