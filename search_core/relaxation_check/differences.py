"""How far two forms are apart in what they compute, and how far they may be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search_core.relaxation_check.passes import TF32, Measured

FORWARD_TOLERANCE = 1e-3
_GRADIENT_TOLERANCE = 0.05
_FLOOR = 0.01
"""Of the root mean square over all tensors: what a tensor is less than that is not looked at."""
_ROUNDINGS = 2.0
"""How many times as far from single precision as the plain form a plan may be in a lower one."""
_NOTHING = 1e-4
"""A norm that may be rounding, as all are of one image: a mean over what was normalised is 0."""
_STEPS = {
    "bfloat16": torch.finfo(torch.bfloat16).eps,
    "float16": torch.finfo(torch.float16).eps,
    TF32: 2.0**-10,
}
"""How far apart numbers of a precision are that are next to each other, relatively."""


@dataclass(frozen=True)
class Difference:
    """The largest one between both forms.

    Attributes:
        what: Where it is, for people.
        relative: Of the norms.
        tolerance: The most that rounding explains.
    """

    what: str
    relative: float
    tolerance: float

    @property
    def excess(self) -> float:
        """How many times the tolerance it is; beyond it above 1, and where it is not a number."""
        ratio = self.relative / self.tolerance
        return ratio if ratio == ratio else float("inf")

    def __str__(self) -> str:
        return f"{self.what} differs by {self.relative:.2g} of its norm"


def in_single_precision(ours: Measured, exact: Measured) -> Difference:
    """The largest difference by its tolerance, of losses and single tensors.

    Args:
        ours: What a plan computes.
        exact: What the plain form does.
    """
    losses = {
        "the loss": (ours.loss, exact.loss),
        "the loss in evaluation": (ours.evaluated, exact.evaluated),
    }
    return _largest(
        (
            *(Difference(what, _apart(*both), FORWARD_TOLERANCE) for what, both in losses.items()),
            *_of_tensors("statistic", FORWARD_TOLERANCE, ours.statistics, exact.statistics),
            *(
                each
                for both in zip(ours.gradients, exact.gradients, strict=True)
                for each in _of_tensors("gradient of", _GRADIENT_TOLERANCE, *both)
            ),
        )
    )


def in_lower_precision(ours: Measured, rounded: Measured, exact: Measured) -> Difference:
    """The largest difference by its tolerance, of losses and the mean over all tensors.

    Args:
        ours: What a plan computes in the lower precision.
        rounded: What the plain form does in it.
        exact: What the plain form does in single precision.
    """
    where = f"in {ours.precision}"
    losses = {
        f"the loss {where}": (ours.loss, rounded.loss, exact.loss),
        f"the loss in evaluation after training {where}": (
            ours.evaluated,
            rounded.evaluated,
            exact.evaluated,
        ),
    }
    gradients = zip(ours.gradients, rounded.gradients, exact.gradients, strict=True)
    return _largest(
        (
            *(
                _of_rounded_losses(what, *three, step=_STEPS[ours.precision])
                for what, three in losses.items()
            ),
            _of_all_tensors(
                f"the statistics of all tensors {where}",
                FORWARD_TOLERANCE,
                ours.statistics,
                rounded.statistics,
                exact.statistics,
            ),
            *(
                _of_all_tensors(f"the gradient of all tensors {where}", _GRADIENT_TOLERANCE, *three)
                for three in gradients
            ),
        )
    )


def _largest(differences: Sequence[Difference]) -> Difference:
    return max(differences, key=lambda difference: difference.excess)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return abs(float(ours - theirs)) / (1 + abs(float(theirs)))


def _of_rounded_losses(
    what: str, ours: Tensor, rounded: Tensor, exact: Tensor, *, step: float
) -> Difference:
    # The plain form's may be right by chance: two that are about a step apart are as exact.
    tolerance = FORWARD_TOLERANCE + _ROUNDINGS * _apart(rounded, exact) + step
    return Difference(what, _apart(ours, exact), tolerance)


def _of_tensors(
    kind: str, tolerance: float, ours: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> Iterator[Difference]:
    names = _compared(exact)
    for name, relative in zip(names, _relative(ours, exact, names), strict=True):
        yield Difference(f"the {kind} {name}", float(relative), tolerance)


def _of_all_tensors(
    what: str,
    tolerance: float,
    ours: Mapping[str, Tensor],
    rounded: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
) -> Difference:
    # What overflows in the plain form is not for a plan to mend.
    names = [name for name in _compared(exact) if rounded[name].isfinite().all()]
    if not names:
        return Difference(what, 0.0, tolerance)
    of_rounding = float(_relative(rounded, exact, names).mean())
    relative = float(_relative(ours, exact, names).mean())
    return Difference(what, relative, tolerance + _ROUNDINGS * of_rounding)


def _compared(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of all but counters."""
    return [name for name, each in tensors.items() if each.is_floating_point()]


def _relative(
    ours: Mapping[str, Tensor], exact: Mapping[str, Tensor], names: Sequence[str]
) -> Tensor:
    """How far tensors are apart, by name."""
    if not names:
        return torch.zeros(0)
    norms = torch.stack([exact[name].double().norm() for name in names])
    gaps = torch.stack([(ours[name].double() - exact[name].double()).norm() for name in names])
    # Read at once: each number that is asked for by itself would wait for a GPU.
    return (gaps / (norms + _FLOOR * norms.square().mean().sqrt() + _NOTHING)).cpu()
