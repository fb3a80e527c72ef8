"""The typed description of a search. Free of torch."""

from search_core.spec.algorithm import AlgorithmSpec, PathSampling
from search_core.spec.augmentation import AugmentationSpec
from search_core.spec.base import SpecModel
from search_core.spec.dataset_facts import FACTS, DatasetFacts
from search_core.spec.datasets import DatasetSpec
from search_core.spec.finalists import Finalists
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.points import Parameters, TrialPoint, point_spec, trial_points
from search_core.spec.presets import PRESETS, Preset
from search_core.spec.resources import ResourcesSpec
from search_core.spec.samples import SampleSpec
from search_core.spec.schedules import (
    ConstantSchedule,
    CosinePowerSchedule,
    CosineSchedule,
    Schedule,
)
from search_core.spec.search import (
    SearchSpec,
    TrainingSpec,
)
from search_core.spec.spaces import (
    CellSpace,
    DartsSpace,
    SharpDartsSpace,
    SharperDartsSpace,
    Space,
)
from search_core.spec.trials import AshaScheduler, TrialsSpec

__all__ = [
    "FACTS",
    "PRESETS",
    "AlgorithmSpec",
    "AshaScheduler",
    "AugmentationSpec",
    "CellSpace",
    "ConstantSchedule",
    "CosinePowerSchedule",
    "CosineSchedule",
    "DartsSpace",
    "DatasetFacts",
    "DatasetSpec",
    "Finalists",
    "HyperCuboidSpace",
    "Parameters",
    "PathSampling",
    "Preset",
    "ResourcesSpec",
    "SampleSpec",
    "Schedule",
    "SearchSpec",
    "SharpDartsSpace",
    "SharperDartsSpace",
    "Space",
    "SpecModel",
    "TrainingSpec",
    "TrialPoint",
    "TrialsSpec",
    "point_spec",
    "trial_points",
]
