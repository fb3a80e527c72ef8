"""Pictures of paths: the grid of their levels and channels, and the way through it."""

from search_core.genotype import PathGenotype
from search_core.spec.hypercuboid import Position
from service.drawing.grid import Grid, color_of, operation_text
from service.drawing.palette import INK


def to_dot(genotype: PathGenotype) -> str:
    """A path in the DOT language.

    Args:
        genotype: The path. Of its cuboid only the channels that it uses are known.
    """
    steps = genotype.steps
    channels = [steps[0].in_channels, *(step.out_channels for step in steps)]
    grid = Grid(
        [Position(step.level, step.stride) for step in steps],
        sorted(set(channels)),
        genotype.final_channels,
        box_lines=1 + max(len(step.settings) for step in steps),
    )
    states = [grid.state(column, each, chosen=True) for column, each in enumerate(channels)]
    plain = f'color="{INK}", penwidth=1.6'
    grid.line(grid.image, states[0], plain)
    for step, start, end in zip(steps, states, states[1:], strict=False):
        color = color_of(step.operation)
        grid.line(start, end, f'color="{color}", penwidth=3')
        grid.box(start, end, operation_text(step.operation, [*step.settings.items()]), color)
    grid.line(states[-1], grid.head, plain)
    return grid.dot()
