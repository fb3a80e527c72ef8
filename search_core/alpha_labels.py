"""What the rows and columns of a supernet's weights stand for. Free of torch.

The weights that a search reports (`EpochReport.alphas`) are bare tables of numbers. With these
labels they can be read without knowing how a supernet orders its edges and operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from search_core.spec.axes import Choice
from search_core.spec.hypercuboid import CuboidOperation, HyperCuboidSpace, Position
from search_core.spec.spaces import CellSpace

CUBOID = "cuboid"
"""The one group of a HyperCuboid's weights."""

Value = Choice | Mapping[str, Choice]


@dataclass(frozen=True)
class Label:
    """A row or a column.

    Attributes:
        text: For people, without a comma.
        facts: The same for programs.
    """

    text: str
    facts: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class TableLabels:
    """The rows of a table, each one choice to make, and its columns, the candidates."""

    rows: tuple[Label, ...]
    columns: tuple[Label, ...]


def alpha_labels(space: CellSpace | HyperCuboidSpace) -> dict[str, TableLabels]:
    """The labels of every group of a space's weights.

    Args:
        space: The space.

    Returns:
        Labels by group, in the order of `Supernet.architecture_weights`. The rows of a cell are its
        edges, in the order of derivation, and its columns the primitives; the rows of a HyperCuboid
        are its positions and its columns the operations of a position.
    """
    if isinstance(space, HyperCuboidSpace):
        return {
            CUBOID: TableLabels(
                tuple(position_label(position) for position in space.positions),
                tuple(operation_label(operation) for operation in space.operations),
            )
        }
    cell = TableLabels(
        tuple(_edge(node, state) for node in range(space.nodes) for state in range(2 + node)),
        tuple(Label(name, {"primitive": name}) for name in space.primitives),
    )
    return {"normal": cell, "reduce": cell}


def position_label(position: Position) -> Label:
    """The label of a place in a path."""
    level, stride = position
    return Label(f"level {level} stride {stride}", {"level": level, "stride": stride})


def operation_label(operation: CuboidOperation) -> Label:
    """The label of an operation."""
    in_channels, out_channels, (name, settings) = operation
    parts = [f"{in_channels} to {out_channels}", name, *(f"{axis}={of}" for axis, of in settings)]
    return Label(
        " ".join(parts),
        {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "operation": name,
            "settings": dict(settings),
        },
    )


def _edge(node: int, state: int) -> Label:
    source = f"input {state}" if state < 2 else f"node {state - 2}"
    return Label(f"{source} to node {node}", {"node": node, "source": state})
