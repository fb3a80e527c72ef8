"""The weights of a HyperCuboid as a graph: what can be done at a position, in the space's order.

Weights are whole numbers here, in a unit in which all of them are whole: so sums are exact, do not
depend on their order, and equal paths are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any

from search_core.derive.weights import SupportsToList
from search_core.genotype import PathGenotype, PathStep
from search_core.spec.hypercuboid import CuboidOperation, HyperCuboidSpace, Position

PathWeights = SupportsToList | Sequence[Any]
"""Softmaxed weights: [level, stride, in, out, operation] where every pair of channels has the same
candidates, as in the paper's instance; or [position, operation], with the operations in the order
of `HyperCuboidSpace.operations`."""

Choices = tuple[int, ...]
"""A path: the index of an operation for each position."""


@dataclass(frozen=True)
class Graph:
    """A cuboid with its weights.

    Attributes:
        space: The cuboid.
        weights: By position, then in the order of the space's operations.
        unit: What 1 stands for.
    """

    space: HyperCuboidSpace
    weights: tuple[tuple[int, ...], ...]
    unit: Fraction

    def score(self, total: int) -> float:
        """A sum of weights as the sum of what was read."""
        return float(total * self.unit)

    def continuations(self) -> dict[int, tuple[int, ...]]:
        """Indices of the operations that read a state, by its channels."""
        reading: dict[int, list[int]] = {channels: [] for channels in self.space.channels}
        for index, operation in enumerate(self.space.operations):
            reading[operation.in_channels].append(index)
        return {channels: tuple(indices) for channels, indices in reading.items()}

    def genotype(self, path: Choices) -> PathGenotype:
        """The architecture of a path."""
        return PathGenotype(
            final_channels=self.space.final_channels,
            steps=tuple(
                self.step(position, self.space.operations[index])
                for position, index in zip(self.space.positions, path, strict=True)
            ),
        )

    def step(self, position: Position, operation: CuboidOperation) -> PathStep:
        """An operation at a position as a step of a path."""
        return PathStep(
            level=position.level,
            stride=position.stride,
            in_channels=operation.in_channels,
            out_channels=operation.out_channels,
            operation=operation.candidate.operation,
            settings=dict(operation.candidate.settings),
        )


def read(weights: PathWeights, space: HyperCuboidSpace) -> Graph:
    """Takes weights in either shape.

    Args:
        weights: The weights.
        space: The cuboid.

    Returns:
        The graph.

    Raises:
        ValueError: The weights have another shape, or one is not finite.
    """
    rows = weights.tolist() if isinstance(weights, SupportsToList) else weights
    num_positions, num_operations = len(space.positions), len(space.operations)
    flat = list(_flattened(rows))
    if _shape(rows) not in _shapes(space):
        shapes = " or ".join(str(list(shape)) for shape in _shapes(space))
        raise ValueError(f"weights of shape {list(_shape(rows))}; this space needs {shapes}")
    if not all(isfinite(weight) for weight in flat):
        raise ValueError("a weight is not finite")
    exact = [Fraction(weight) for weight in flat]
    # A float is a whole number over a power of two.
    unit = Fraction(1, max(weight.denominator for weight in exact))
    whole = [int(weight / unit) for weight in exact]
    return Graph(
        space,
        tuple(
            tuple(whole[first : first + num_operations])
            for first in range(0, num_positions * num_operations, num_operations)
        ),
        unit,
    )


def _shapes(space: HyperCuboidSpace) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(len(space.positions), len(space.operations))]
    if space.num_candidates is not None:
        width = len(space.channels)
        shapes.insert(0, (space.levels, len(space.strides), width, width, space.num_candidates))
    return shapes


def _shape(rows: Any) -> tuple[int, ...]:
    """The shape of nested sequences; where they are ragged, of what there is of one."""
    shape: list[int] = []
    level = [rows]
    while level and all(hasattr(each, "__len__") for each in level):
        lengths = {len(each) for each in level}
        if len(lengths) > 1:
            return (*shape, -1)
        shape.append(lengths.pop())
        level = [item for each in level for item in each]
    return tuple(shape)


def _flattened(rows: Any) -> Any:
    if not hasattr(rows, "__len__"):
        yield float(rows)
        return
    for row in rows:
        yield from _flattened(row)
