"""Parts of a plan's multipliers, whose gradients come back together.

To part them at once takes a few kernels for all gradients, instead of two for each multiplier's.

Legend: k multipliers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Wanted:
    """What parts of its multipliers a plan takes: the same ones in every pass, known after one."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, ...]] = []
        self._order: Tensor | None = None
        # A step that was captured before a part was added reads what was the order then.
        self._former: list[Tensor] = []

    def add(self, part: tuple[int, ...]) -> None:
        """Notes a part that nobody has taken yet.

        Args:
            part: Indices of multipliers.
        """
        self._parts.append(part)
        if self._order is not None:
            self._former.append(self._order)
            self._order = None

    def of(self, multipliers_k: Tensor) -> dict[tuple[int, ...], Tensor]:
        """All parts that are known.

        Args:
            multipliers_k: The multipliers.
        """
        if not self._parts:
            return {}
        indices = [index for part in self._parts for index in part]
        if indices != list(range(len(multipliers_k))):
            device = multipliers_k.device
            if self._order is None or self._order.device != device:
                # Brought there once: a captured step brings nothing.
                self._order = torch.tensor(indices, device=device)
            multipliers_k = multipliers_k.index_select(0, self._order)
        parts = torch.split(multipliers_k, [len(part) for part in self._parts])
        return dict(zip(self._parts, parts, strict=True))


class Portions:
    """Parts of a plan's multipliers.

    Args:
        multipliers_k: The multipliers.
        wanted: What has been taken before; what is taken for the first time is added.
    """

    def __init__(self, multipliers_k: Tensor, wanted: Wanted) -> None:
        self._multipliers_k = multipliers_k
        self._wanted = wanted
        self._known = wanted.of(multipliers_k)

    def of(self, indices: Sequence[int]) -> Tensor:
        """Some of them.

        Args:
            indices: Which, in which order.
        """
        part = tuple(indices)
        if part not in self._known:
            self._wanted.add(part)
            chosen = torch.tensor(part, device=self._multipliers_k.device)
            self._known[part] = self._multipliers_k.index_select(0, chosen)
        return self._known[part]
