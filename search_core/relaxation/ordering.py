"""Multipliers in the order in which plans want them, brought there for several plans at once.

Legend: k multipliers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from search_core.relaxation.planners import MixturePlan


class Multipliers:
    """Parts multipliers among plans.

    Args:
        plans: The plans.
    """

    def __init__(self, plans: Sequence[MixturePlan]) -> None:
        self._lengths = [len(plan.order) for plan in plans]
        self._indices = [index for plan in plans for index in plan.order]
        self._order: Tensor | None = None

    def of(self, multipliers_k: Tensor) -> list[Tensor]:
        """Each plan's multipliers, in its order.

        Args:
            multipliers_k: By the terms' indices.
        """
        if self._order is None or self._order.device != multipliers_k.device:
            # Brought there once: a captured step brings nothing.
            self._order = torch.tensor(self._indices, device=multipliers_k.device)
        return list(torch.split(multipliers_k.index_select(0, self._order), self._lengths))
