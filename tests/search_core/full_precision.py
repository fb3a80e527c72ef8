"""A stand-in for `search_core.precision.in_full`, of which a CPU sees nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class InFull:
    """Knows whether it is on.

    Attributes:
        is_on: Whether what is computed now is computed in full.
    """

    def __init__(self) -> None:
        self.is_on = False

    @contextmanager
    def __call__(self, device: torch.device) -> Iterator[None]:
        """On inside, as for a GPU."""
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False
