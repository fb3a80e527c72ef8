"""Relaxations that are planned as a whole: the same function as their modules, in less time.

The plain form, one module for each edge and primitive, stays the oracle. A plan computes once what
several operations need of a state, takes convolutions and normalisations together where that saves
passes over memory, and lets every other module be called as it is.
"""

from search_core.relaxation.grouped import GroupedPlan
from search_core.relaxation.lanes import State, as_images
from search_core.relaxation.ordering import Multipliers
from search_core.relaxation.planners import MixturePlan, Planned, Planner, planner_for
from search_core.relaxation.plans import Plan, Term
from search_core.relaxation.sharing import Shared
from search_core.relaxation.statistics import RunningStatistics

__all__ = [
    "GroupedPlan",
    "MixturePlan",
    "Multipliers",
    "Plan",
    "Planned",
    "Planner",
    "RunningStatistics",
    "Shared",
    "State",
    "Term",
    "as_images",
    "planner_for",
]
