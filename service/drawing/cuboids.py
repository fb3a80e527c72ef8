"""Pictures of a whole hypercuboid: every operation by its weight, and the derived path on top."""

import heapq
from collections import Counter
from math import sqrt
from typing import Final

from search_core.alpha_labels import operation_label
from search_core.genotype import PathGenotype, PathStep
from search_core.spec.axes import OPERATION
from search_core.spec.hypercuboid import CuboidOperation, HyperCuboidSpace, Position
from service.drawing.grid import COLUMN, Grid, color_of, fan, operation_text
from service.drawing.palette import INK

_MOST_LINES: Final = 4096
"""More cannot be told apart, and take a browser's time."""

_PALE: Final = f'color="{INK}30", penwidth=1'


def to_dot(
    space: HyperCuboidSpace, weights: list[list[float]], path: PathGenotype, when: str
) -> str:
    """A cuboid in the DOT language.

    A line's width and opacity grow with the root of its operation's weight, so that they mean the
    same at every epoch: undecided positions are pale, decided ones are not.

    Args:
        space: The cuboid.
        weights: Softmaxed, [position, operation].
        path: What is derived; not always the heaviest.
        when: When they were so, for the caption.
    """
    box_lines = 2 + max(len(each.candidate.settings) for each in space.operations)
    grid = Grid(space.positions, space.channels, space.final_channels, box_lines=box_lines)
    states = [
        {channels: grid.state(column, channels, chosen=False) for channels in grid.channels}
        for column in range(len(space.positions) + 1)
    ]
    for channels in grid.channels:
        grid.line(grid.image, states[0][channels], _PALE)
    num_lines = _draw_operations(grid, states, space, weights)
    for channels in grid.channels:
        grid.line(states[-1][channels], grid.head, _PALE)
    _draw_path(grid, space, weights, path)
    _draw_legend(grid, space, num_lines, when)
    return grid.dot()


def _draw_operations(
    grid: Grid, states: list[dict[int, str]], space: HyperCuboidSpace, weights: list[list[float]]
) -> int:
    """Draws the operations, at most the heaviest of all, the lighter ones first."""
    every = (
        (weight, position, index)
        for position, row in enumerate(weights)
        for index, weight in enumerate(row)
    )
    drawn = sorted(heapq.nlargest(_MOST_LINES, every))
    offsets = _offsets(space)
    for weight, position, index in drawn:
        operation = space.operations[index]
        opacity = round(255 * (0.1 + 0.9 * sqrt(weight)))
        grid.line(
            states[position][operation.in_channels],
            states[position + 1][operation.out_channels],
            f'color="{color_of(operation.candidate.operation)}{opacity:02x}", '
            f"penwidth={_width(weight):.2f}, "
            f'tooltip="{operation_label(operation).text}: {weight:.4f}"',
            offset=offsets[index],
        )
    return len(drawn)


def _draw_path(
    grid: Grid, space: HyperCuboidSpace, weights: list[list[float]], path: PathGenotype
) -> None:
    steps = path.steps
    channels = [steps[0].in_channels, *(step.out_channels for step in steps)]
    states = [grid.state(column, each, chosen=True) for column, each in enumerate(channels)]
    offsets = _offsets(space)
    ink = f'color="{INK}", penwidth=1.6'
    grid.line(grid.image, states[0], ink)
    for position, step in enumerate(steps):
        index = _index_of(space, weights[position], position, step)
        weight, offset = weights[position][index], offsets[index]
        color, start, end = color_of(step.operation), states[position], states[position + 1]
        # A dark edge around the line: it is what is derived, however little it weighs.
        width = _width(weight)
        grid.line(start, end, f'color="{INK}", penwidth={width + 3:.2f}', offset=offset)
        grid.line(start, end, f'color="{color}", penwidth={width:.2f}', offset=offset)
        text = operation_text(step.operation, [*step.settings.items()])
        grid.box(start, end, f"{text}\n{weight:.3f}", color, offset=offset)
    grid.line(states[-1], grid.head, ink)


def _draw_legend(grid: Grid, space: HyperCuboidSpace, num_lines: int, when: str) -> None:
    y = grid.bottom - 16
    for number, name in enumerate(space.choices(OPERATION)):
        x, color = number * COLUMN, color_of(str(name))
        grid.line(grid.point((x, y)), grid.point((x + 28, y)), f'color="{color}", penwidth=4')
        grid.text((x + 86, y), str(name), color=color)
    total = len(space.positions) * len(space.operations)
    shown = "" if num_lines == total else f"the heaviest {num_lines:,} of "
    caption = (
        f"{when}: {shown}{total:,} operations, the wider and stronger the heavier.\n"
        "The weights of a position add up to 1. Edged in black: the path that is derived."
    )
    grid.text((max(grid.right / 2, 180), y - 34), caption, color="#52606d")


def _width(weight: float) -> float:
    return 0.4 + 6 * sqrt(weight)


def _offsets(space: HyperCuboidSpace) -> list[float]:
    """By how much each operation's line is bent: those between the same states fan out."""
    counts = Counter((each.in_channels, each.out_channels) for each in space.operations)
    seen: Counter[tuple[int, int]] = Counter()
    offsets = []
    for each in space.operations:
        join = each.in_channels, each.out_channels
        offsets.append(fan(seen[join], counts[join]))
        seen[join] += 1
    return offsets


def _index_of(space: HyperCuboidSpace, row: list[float], position: int, step: PathStep) -> int:
    """The operation that a step of the derived path is; at its stride several may be the same."""
    joined = [
        index
        for index, (in_channels, out_channels, candidate) in enumerate(space.operations)
        if (in_channels, out_channels) == (step.in_channels, step.out_channels)
        and candidate.operation == step.operation
    ]
    same = [
        index
        for index in joined
        if _step(space.operations[index], space.positions[position]) == step
    ]
    return max(same, key=row.__getitem__)


def _step(operation: CuboidOperation, position: Position) -> PathStep:
    return PathStep(
        level=position.level,
        stride=position.stride,
        in_channels=operation.in_channels,
        out_channels=operation.out_channels,
        operation=operation.candidate.operation,
        settings=dict(operation.candidate.settings),
    )
