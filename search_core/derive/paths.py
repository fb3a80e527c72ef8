"""Heavy paths through a HyperCuboid (arXiv 1903.09900, section 3.3).

A path's score is the sum of the weights of its operations. Of equal paths the one comes first whose
first different operation is earlier in the space's order: by input, by output, by candidate.
"""

import heapq
from dataclasses import dataclass

from search_core.derive.graph import Choices, Graph, PathWeights, read
from search_core.genotype import PathGenotype
from search_core.spec.hypercuboid import HyperCuboidSpace

_Scored = tuple[int, Choices]


@dataclass(frozen=True)
class RankedPath:
    """A derived path.

    Attributes:
        genotype: The architecture.
        score: Sum of the weights of its operations.
    """

    genotype: PathGenotype
    score: float


def heaviest_path(weights: PathWeights, space: HyperCuboidSpace) -> PathGenotype:
    """The path with the highest score.

    Args:
        weights: Softmaxed weights, [level, stride, in, out, operation] or [position, operation].
        space: The cuboid.

    Returns:
        The architecture.

    Raises:
        ValueError: The weights have another shape, or one is not finite.
    """
    return read(weights, space).genotype(heaviest_choices(weights, space))


def heaviest_choices(weights: PathWeights, space: HyperCuboidSpace) -> Choices:
    """The path with the highest score, as the index of an operation for each position.

    Args:
        weights: Softmaxed weights, [level, stride, in, out, operation] or [position, operation].
        space: The cuboid.

    Returns:
        The indices.

    Raises:
        ValueError: The weights have another shape, or one is not finite.
    """
    [(_, path)] = _best(read(weights, space), 1)
    return path


def best_paths(weights: PathWeights, space: HyperCuboidSpace, k: int) -> list[RankedPath]:
    """The k paths with the highest scores, exactly.

    Args:
        weights: Softmaxed weights, [level, stride, in, out, operation] or [position, operation].
        space: The cuboid.
        k: How many; fewer are returned where there are fewer paths.

    Returns:
        The paths, the heaviest first.

    Raises:
        ValueError: The weights have another shape, one is not finite, or k is below 1.
    """
    if k < 1:
        raise ValueError(f"{k} paths: ask for at least one")
    graph = read(weights, space)
    return [_ranked(graph, scored) for scored in _best(graph, k)]


def beam_paths(weights: PathWeights, space: HyperCuboidSpace, width: int) -> list[RankedPath]:
    """Paths by beam search: at every position the heaviest beginnings are kept.

    Unlike `best_paths` it may miss the heaviest path, and shows what a greedy choice would find:
    with a width of 1 it takes the heaviest operation that fits, position by position.

    Args:
        weights: Softmaxed weights, [level, stride, in, out, operation] or [position, operation].
        space: The cuboid.
        width: Beginnings kept, and paths returned at most.

    Returns:
        The paths, the heaviest first.

    Raises:
        ValueError: The weights have another shape, one is not finite, or the width is below 1.
    """
    if width < 1:
        raise ValueError(f"a beam of width {width}: it must keep at least one path")
    graph = read(weights, space)
    reading = graph.continuations()
    everything = tuple(range(len(space.operations)))
    beam: list[_Scored] = [(0, ())]
    for row in graph.weights:
        beam = _first(
            width,
            [
                (score + row[index], (*path, index))
                for score, path in beam
                for index in (
                    reading[space.operations[path[-1]].out_channels] if path else everything
                )
            ],
        )
    return [_ranked(graph, scored) for scored in beam]


def path_score(weights: PathWeights, space: HyperCuboidSpace, genotype: PathGenotype) -> float:
    """The score of one path.

    Args:
        weights: Softmaxed weights, [level, stride, in, out, operation] or [position, operation].
        space: The cuboid.
        genotype: A path through it.

    Returns:
        Sum of the weights of its operations.

    Raises:
        ValueError: The weights have another shape, or the path is none of this cuboid's.
    """
    graph = read(weights, space)
    if len(genotype.steps) != len(space.positions):
        raise ValueError(
            f"a path of {len(genotype.steps)} steps in a cuboid of {len(space.positions)} positions"
        )
    score = 0
    for number, (row, step) in enumerate(zip(graph.weights, genotype.steps, strict=True)):
        matching = [
            row[index]
            for index, operation in enumerate(space.operations)
            if graph.step(space.positions[number], operation) == step
        ]
        if not matching:
            raise ValueError(f"step {number} of the path is no operation of this cuboid: {step}")
        score += max(matching)
    return graph.score(score)


def _best(graph: Graph, k: int) -> list[_Scored]:
    reading = graph.continuations()
    operations = graph.space.operations
    # From the end: the best k ways to go on from each state. They are enough, because how a path
    # came to a state changes nothing of what follows.
    suffixes: dict[int, list[_Scored]] = {channels: [(0, ())] for channels in reading}
    for row in reversed(graph.weights):
        suffixes = {
            channels: _first(
                k,
                [
                    (row[index] + score, (index, *path))
                    for index in indices
                    for score, path in suffixes[operations[index].out_channels]
                ],
            )
            for channels, indices in reading.items()
        }
    return _first(k, [scored for each in suffixes.values() for scored in each])


def _first(k: int, scored: list[_Scored]) -> list[_Scored]:
    return heapq.nsmallest(k, scored, key=lambda each: (-each[0], each[1]))


def _ranked(graph: Graph, scored: _Scored) -> RankedPath:
    score, path = scored
    return RankedPath(graph.genotype(path), graph.score(score))
