"""Which choice of an axis is winning: its share of the weights. Free of torch."""

from collections.abc import Mapping, Sequence

from search_core.spec.axes import AXES, CHANNELS, OPERATION, Choice
from search_core.spec.hypercuboid import CuboidOperation, HyperCuboidSpace

PREFIX = "marginal"


def marginals(weights: Sequence[Sequence[float]], space: HyperCuboidSpace) -> dict[str, float]:
    """The share of every choice of every searched axis, a mean over the positions.

    An operation counts for an axis where it has that hyperparameter: pools say nothing about
    activations. The shares of one axis add up to 1.

    Args:
        weights: Softmaxed weights, [positions, operations].
        space: The cuboid.

    Returns:
        Shares by metric name, such as `marginal.kernel_size=5`. The axis `channels` is told apart
        as `in_channels` and `out_channels`.
    """
    shares: dict[str, float] = {}
    for axis in space.searched_axes:
        for name in ("in_channels", "out_channels") if axis == CHANNELS else (axis,):
            by_choice = _by_choice(weights, space, axis, name)
            whole = sum(by_choice.values())
            if not whole:  # no operation of this cuboid has it
                continue
            for choice, share in by_choice.items():
                shares[f"{PREFIX}.{name}={choice}"] = share / whole
    return shares


def _by_choice(
    weights: Sequence[Sequence[float]], space: HyperCuboidSpace, axis: str, name: str
) -> Mapping[Choice, float]:
    totals: dict[Choice, float] = dict.fromkeys(space.choices(axis), 0.0)
    for index, operation in enumerate(space.operations):
        choice = _choice(operation, space, name)
        if choice is not None:
            totals[choice] += sum(row[index] for row in weights)
    return totals


def _choice(operation: CuboidOperation, space: HyperCuboidSpace, name: str) -> Choice | None:
    """What an operation has on an axis; None where it has no such hyperparameter."""
    if name in ("in_channels", "out_channels"):
        channels: int = getattr(operation, name)
        return channels
    if name == OPERATION:
        return operation.candidate.operation
    chosen = dict(operation.candidate.settings).get(name)
    if chosen is None and space.varies(operation, name):
        return AXES[name].default[0]
    return chosen
