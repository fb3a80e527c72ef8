"""Which form of a plan computes mixtures on which device."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from search_core.relaxation.grouped import GroupedPlan
from search_core.relaxation.plans import Plan, Term
from search_core.relaxation.sharing import Shared
from search_core.relaxation.statistics import RunningStatistics


class MixturePlan(Protocol):
    """Computes the states that terms add up to."""

    @property
    def order(self) -> Sequence[int]:
        """The terms' indices, in the order in which their multipliers are wanted."""
        ...

    @property
    def is_dense(self) -> bool:
        """Whether all but the first dimension of images is to lie without gaps."""
        ...

    @property
    def suits_single(self) -> bool:
        """Whether single operations gain by being planned."""
        ...

    @property
    def suits_unrelated(self) -> bool:
        """Whether operations gain together that neither read nor add to the same state."""
        ...

    @property
    def by_source(self) -> bool:
        """Whether terms gain together that read the same states, or those that add to one."""
        ...

    @property
    def evaluates(self) -> bool:
        """Whether it is for evaluation, too, where no gradients are asked for."""
        ...

    @property
    def applies(self) -> bool:
        """Whether the operations are in a state that it knows; else they are called plainly."""
        ...

    def __call__(
        self, shared: Shared, multipliers_k: Tensor, statistics: RunningStatistics
    ) -> None:
        """Adds to the targets; see `Plan`."""
        ...


@runtime_checkable
class Planned(Protocol):
    """A module that may compute its mixture by a plan."""

    @property
    def planned(self) -> bool:
        """Whether it does so."""
        ...

    @property
    def evaluates_by_plan(self) -> bool:
        """Whether it does so in evaluation, too."""
        ...

    def unplan(self) -> None:
        """Computes plainly from now on."""
        ...

    def plan(self, planner: "Planner") -> None:
        """Does so from now on, where there is anything to plan.

        Args:
            planner: Makes the plan.
        """
        ...


Planner = Callable[[Sequence[Term]], MixturePlan]
"""Makes a plan of terms."""


def planner_for(device: torch.device) -> Planner:
    """The form that suits a device.

    For a CPU there are compiled kernels, which `Plan` calls. A GPU waits for kernels to be
    launched, and `GroupedPlan` needs few of them.

    Args:
        device: Where a network trains.
    """
    return Plan if device.type == "cpu" else GroupedPlan
