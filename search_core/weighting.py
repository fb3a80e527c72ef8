"""How an edge turns its softmaxed weights into the multipliers of its primitives.

Legend: k the candidates that compete with each other.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from search_core.spec.algorithm import AlgorithmSpec

Weighting = Callable[[Tensor], Tensor]
"""Maps softmaxed weights [..., k] to multipliers of the same shape."""


def scalar(weights: Tensor) -> Tensor:
    """The weights as they are (arXiv 1806.09055, equation 2).

    Args:
        weights: Softmaxed weights, shape [..., k].

    Returns:
        The multipliers, shape [..., k].
    """
    return weights


def max_w(weights: Tensor, detach_max: bool = False) -> Tensor:
    """Max-W regularization (arXiv 1903.09900, section 3.2): `1 - max(w) + w`.

    The heaviest candidate is always multiplied by 1. With the gradient through the maximum, that
    candidate's weight is not trained by its own output but against all the others'.

    Args:
        weights: Softmaxed weights, shape [..., k]; the maximum is over the last axis.
        detach_max: Let no gradient flow through the maximum.

    Returns:
        The multipliers, shape [..., k].
    """
    # max(dim), unlike amax, sends the whole gradient to one of several equal maxima.
    heaviest = weights.max(dim=-1, keepdim=True).values
    if detach_max:
        heaviest = heaviest.detach()
    return 1 - heaviest + weights


def from_spec(algorithm: AlgorithmSpec) -> Weighting:
    """The weighting that a spec names.

    Args:
        algorithm: The spec's algorithm.

    Returns:
        A function from softmaxed weights [..., k] to multipliers [..., k].
    """
    if algorithm.weighting == "max_w":
        return partial(max_w, detach_max=algorithm.detach_max)
    return REGISTRY[algorithm.weighting]


REGISTRY: dict[str, Weighting] = {"scalar": scalar, "max_w": max_w}
"""Every weighting by the name that a spec uses."""
