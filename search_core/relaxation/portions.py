"""Parts of a plan's multipliers, whose gradients come back together.

To part them at once takes one kernel for all gradients, instead of two for each part's.

Legend: k multipliers.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


class Portions:
    """Parts of a plan's multipliers.

    Args:
        multipliers_k: The multipliers.
        cuts: Where parts have begun and ended before. What is not known yet is added.
    """

    def __init__(self, multipliers_k: Tensor, cuts: set[int]) -> None:
        self._multipliers_k = multipliers_k
        self._cuts = cuts
        bounds = sorted({0, *cuts, len(multipliers_k)})
        lengths = [end - begin for begin, end in pairwise(bounds)]
        self._parts = dict(zip(bounds, torch.split(multipliers_k, lengths), strict=False))

    def of(self, indices: Sequence[int]) -> Tensor:
        """Some of them.

        Args:
            indices: Which.
        """
        begin, end = indices[0], indices[0] + len(indices)
        if list(indices) != list(range(begin, end)):
            return torch.stack([self._multipliers_k[index] for index in indices])
        found, place = [], begin
        while place < end and place in self._parts:
            found.append(self._parts[place])
            place += len(found[-1])
        if place == end:
            return found[0] if len(found) == 1 else torch.cat(found)
        self._cuts |= {begin, end}
        return self._multipliers_k.narrow(0, begin, len(indices))
