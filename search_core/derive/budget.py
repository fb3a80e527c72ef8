"""The heaviest path under a budget, exactly.

A path through a layered graph with a limit on the sum of its costs is a resource-constrained
longest path. It is solved by labels from the end: for each state the ways to go on, of which one
that weighs no more and costs no less than another is dropped. A Lagrangian bound, the score that
remains when each unit of cost is charged a price, drops those that can no longer win. What is
dropped is never the answer; only the number of labels depends on the bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search_core.costs import Cost
from search_core.cuboid_size import CuboidCosts
from search_core.derive.graph import Choices, Graph, PathWeights, read
from search_core.derive.paths import RankedPath
from search_core.spec.hypercuboid import HyperCuboidSpace

CostMeasure = Literal["parameters", "multiply_adds", "paper_multiply_adds"]
"""What a budget limits; see `search_core.costs.Cost`."""

_BISECTIONS = 40
_SLACK = 1e-9
"""Share of the score by which the bound, which is computed in floats, may be wrong."""

_Label = tuple[int, int, Choices]
"""Negative score, cost and path of a way to go on: in this order the better one is smaller."""


@dataclass(frozen=True)
class _Problem:
    """A cuboid with weights and costs.

    Attributes:
        graph: The weights.
        costs: By position and operation.
        first: Of a stem, by channels.
        last: Of a head, by channels, with what every path pays.
        budget: The most that a path may cost.
    """

    graph: Graph
    costs: tuple[tuple[int, ...], ...]
    first: dict[int, int]
    last: dict[int, int]
    budget: int


def heaviest_path_within(
    weights: PathWeights,
    space: HyperCuboidSpace,
    budget: int,
    *,
    measure: CostMeasure,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> RankedPath:
    """The path with the highest score among those whose network costs no more than the budget.

    Of equal scores the cheaper path, and of those the first in the space's order.

    Args:
        weights: Softmaxed weights, [level, stride, in, out, operation] or [position, operation].
        space: The cuboid.
        budget: The most that the whole network may cost, stem, head and classifier included.
        measure: What is counted.
        image_shape: Channels, height and width of an image.
        num_classes: Classes to tell apart.

    Returns:
        The path.

    Raises:
        ValueError: The weights have another shape, one is not finite, or no path is so cheap; the
            message then says what the cheapest one costs.
    """
    problem = _problem(read(weights, space), budget, measure, image_shape, num_classes)
    cheapest, _ = _best_at_price(problem, None)
    if cheapest > budget:
        raise ValueError(
            f"no path of this cuboid fits {budget:,} {measure}: the cheapest has {cheapest:,}"
        )
    negative_score, _, path = _solve(problem)
    return RankedPath(problem.graph.genotype(path), problem.graph.score(-negative_score))


def _problem(
    graph: Graph,
    budget: int,
    measure: CostMeasure,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> _Problem:
    def measured(cost: Cost) -> int:
        value: int = getattr(cost, measure)
        return value

    counted = CuboidCosts(graph.space, image_shape, num_classes)
    always = measured(counted.classifier)
    channels = graph.space.channels
    return _Problem(
        graph,
        tuple(tuple(measured(each.cost) for each in row) for row in counted.operations),
        {each: measured(counted.stem(each).cost) for each in channels},
        {each: measured(counted.head(each).cost) + always for each in channels},
        budget,
    )


def _solve(problem: _Problem) -> _Label:
    price, incumbent = _price(problem)
    potentials = _potentials(problem, price)
    reading = problem.graph.continuations()
    operations = problem.graph.space.operations
    labels: dict[int, list[_Label]] = {
        channels: [(0, cost, ())] for channels, cost in problem.last.items()
    }
    for position in reversed(range(len(problem.costs))):
        row = problem.graph.weights[position]
        costs = problem.costs[position]
        potential = potentials[position]
        labels = {
            channels: _undominated(
                [
                    (negative_score - row[index], cost + costs[index], (index, *path))
                    for index in indices
                    for negative_score, cost, path in labels[operations[index].out_channels]
                ],
                problem,
                price,
                potential[channels],
                incumbent,
            )
            for channels, indices in reading.items()
        }
    return min(
        (negative_score, cost + problem.first[channels], path)
        for channels, some in labels.items()
        for negative_score, cost, path in some
        if cost + problem.first[channels] <= problem.budget
    )


def _undominated(
    labels: list[_Label], problem: _Problem, price: float, potential: float, incumbent: int
) -> list[_Label]:
    """Those that may still be part of the answer, cheapest first."""
    slack = _SLACK * max(1, incumbent)
    kept: list[_Label] = []
    best = 1
    for cost, negative_score, path in sorted((cost, score, path) for score, cost, path in labels):
        # Sorted by cost, so that a label is worth keeping only if it weighs more than all before.
        if negative_score >= best and kept:
            continue
        bound = -negative_score + potential + price * (problem.budget - cost)
        if bound < incumbent - slack:
            continue
        kept.append((negative_score, cost, path))
        best = negative_score
    return kept


def _price(problem: _Problem) -> tuple[float, int]:
    """The price of a unit of cost that bounds best, and the score of a path within the budget."""
    cost, score = _best_at_price(problem, 0.0)
    if cost <= problem.budget:
        return 0.0, score
    _, incumbent = _best_at_price(problem, None)
    low, high = 0.0, 1.0
    while _best_at_price(problem, high)[0] > problem.budget:
        low, high = high, 4 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        cost, score = _best_at_price(problem, middle)
        if cost <= problem.budget:
            high, incumbent = middle, max(incumbent, score)
        else:
            low = middle
    return high, incumbent


def _best_at_price(problem: _Problem, price: float | None) -> tuple[int, int]:
    """Cost and score of the path with the most score less price times cost; None: the cheapest."""

    def worth(score: int, cost: int) -> float:
        return -cost if price is None else score - price * cost

    operations = problem.graph.space.operations
    reached = {channels: (worth(0, cost), cost, 0) for channels, cost in problem.first.items()}
    for row, costs in zip(problem.graph.weights, problem.costs, strict=True):
        following: dict[int, tuple[float, int, int]] = {}
        for index, operation in enumerate(operations):
            value, cost, score = reached[operation.in_channels]
            candidate = (
                value + worth(row[index], costs[index]),
                cost + costs[index],
                score + row[index],
            )
            known = following.get(operation.out_channels)
            if known is None or candidate[0] > known[0]:
                following[operation.out_channels] = candidate
        reached = following
    _, cost, score = max(
        (value + worth(0, problem.last[channels]), cost + problem.last[channels], score)
        for channels, (value, cost, score) in reached.items()
    )
    return cost, score


def _potentials(problem: _Problem, price: float) -> Sequence[dict[int, float]]:
    """The most that a beginning up to each position and state can be worth at a price."""
    operations = problem.graph.space.operations
    potentials = [{channels: -price * cost for channels, cost in problem.first.items()}]
    for row, costs in zip(problem.graph.weights, problem.costs, strict=True):
        following = dict.fromkeys(problem.first, float("-inf"))
        for index, operation in enumerate(operations):
            worth = potentials[-1][operation.in_channels] + row[index] - price * costs[index]
            out = operation.out_channels
            following[out] = max(following[out], worth)
        potentials.append(following)
    return potentials
