"""What two paths have in common and what not, step by step. Free of torch.

`search_core.genotype_diff.diff` is the way in, for genotypes of either kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

from search_core.genotype import PathGenotype, PathStep
from search_core.spec import axes
from search_core.spec.axes import Choice

_FIELDS = ("level", "stride", "in_channels", "out_channels", "operation")


@dataclass(frozen=True)
class StepDiff:
    """One step of two paths.

    Attributes:
        step: The step, from 0.
        a: The first path's; None where it is shorter.
        b: The second path's.
        changed: What is not the same, by the name of the step's field or of the setting's axis:
            the first path's value and the second's. A setting that a step leaves out is its axis's
            default. Empty where the steps are the same, or one of them is missing.
    """

    step: int
    a: PathStep | None
    b: PathStep | None
    changed: Mapping[str, tuple[Choice, Choice]]

    @property
    def identical(self) -> bool:
        """Whether both paths have the step and do the same in it."""
        return self.a == self.b


@dataclass(frozen=True)
class PathDiff:
    """All of two paths.

    Attributes:
        steps: Every step that either has.
        final_channels_a: Channels that the first path's head classifies.
        final_channels_b: Those of the second's.
    """

    steps: tuple[StepDiff, ...]
    final_channels_a: int
    final_channels_b: int

    @property
    def identical(self) -> bool:
        """Whether both are the same architecture, that is, have the same hash."""
        return self.final_channels_a == self.final_channels_b and all(
            step.identical for step in self.steps
        )


def path_diff(a: PathGenotype, b: PathGenotype) -> PathDiff:
    """Compares two paths.

    Args:
        a: The first.
        b: The second; it may have another number of steps.

    Returns:
        For each step what is not the same.
    """
    pairs = zip_longest(a.steps, b.steps)
    return PathDiff(
        tuple(StepDiff(step, *pair, _changed(*pair)) for step, pair in enumerate(pairs)),
        a.final_channels,
        b.final_channels,
    )


def _changed(a: PathStep | None, b: PathStep | None) -> dict[str, tuple[Choice, Choice]]:
    if a is None or b is None:
        return {}
    values: dict[str, tuple[Choice, Choice]] = {
        name: (getattr(a, name), getattr(b, name)) for name in _FIELDS
    }
    for name, axis in axes.layer_axes().items():
        default = axis.default[0]
        values[name] = (a.settings.get(name, default), b.settings.get(name, default))
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}
