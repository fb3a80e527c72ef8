"""What the searches are worth against the grid: statistics and Markdown tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.ground_truth.grids import GridPoint
from benchmarks.ground_truth.searches import VARIANTS, SearchOutcome, score
from search_core.derive.graph import Choices


@dataclass(frozen=True)
class Grid:
    """The ground truth of one data set.

    Attributes:
        accuracy: Mean test accuracy over the seeds, by path.
        highest: The highest of these. Among many paths that are about as good it is a lucky one's,
            so that a regret against it is at least as high as the true one.
        best: What the best path has with a seed that did not choose it: with each seed the path is
            measured that is best on average over the other ones. It is at most the true best.
        mean: What a random path has.
        deviation: Mean standard deviation over the seeds of one path.
        seconds: CPU seconds of training every path once.
    """

    accuracy: dict[Choices, float]
    highest: float
    best: float
    mean: float
    deviation: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One way to search, over its seeds.

    Attributes:
        variant: Its name.
        correlations: Spearman's, between a path's score and its trained accuracy.
        regrets: The highest accuracy less that of the chosen path, in percentage points.
        cost: CPU seconds of a search, as a share of the grid's.
    """

    variant: str
    correlations: list[float]
    regrets: list[float]
    cost: float


def summarise(points: Sequence[GridPoint], timed: Sequence[GridPoint]) -> Grid:
    """The ground truth as numbers.

    Args:
        points: Every path, trained.
        timed: Some of them, trained in turn with the searches, so that both meet the same machine.
    """
    accuracy = {point.path: fmean(point.accuracies) for point in points}
    several = [point.accuracies for point in points if len(point.accuracies) > 1]
    return Grid(
        accuracy=accuracy,
        highest=max(accuracy.values()),
        best=_best_of_the_others(points),
        mean=fmean(accuracy.values()),
        deviation=fmean(stdev(each) for each in several) if several else 0.0,
        seconds=len(points) * fmean(point.seconds for point in timed),
    )


def _best_of_the_others(points: Sequence[GridPoint]) -> float:
    seeds = range(len(points[0].accuracies))
    if len(seeds) == 1:
        return max(point.accuracies[0] for point in points)
    total = 0.0
    for seed in seeds:
        best = max(points, key=lambda point: sum(point.accuracies) - point.accuracies[seed])
        total += best.accuracies[seed]
    return total / len(seeds)


def rows(grid: Grid, outcomes: Sequence[SearchOutcome]) -> list[Row]:
    """Every variant against the grid.

    Args:
        grid: The ground truth.
        outcomes: All searches, in any order.
    """
    made = []
    for name in VARIANTS:
        of_variant = [outcome for outcome in outcomes if outcome.variant == name]
        if not of_variant:
            continue
        made.append(
            Row(
                variant=name,
                correlations=[_correlation(grid, outcome) for outcome in of_variant],
                regrets=[
                    100 * (grid.highest - grid.accuracy[outcome.path]) for outcome in of_variant
                ],
                cost=fmean(outcome.seconds for outcome in of_variant) / grid.seconds,
            )
        )
    return made


def table(grid: Grid, compared: Sequence[Row]) -> str:
    """The comparison as a Markdown table.

    Args:
        grid: The ground truth.
        compared: One row for each variant.
    """
    head = ("search", "rank correlation", "regret, points", "worst", "cost, % of the grid's")
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [
        _line(
            [
                VARIANTS[row.variant].label,
                _spread(row.correlations),
                _spread(row.regrets),
                f"{max(row.regrets):.2f}",
                f"{100 * row.cost:.1f}",
            ]
        )
        for row in compared
    ]
    random = 100 * (grid.highest - grid.mean)
    worst = 100 * (grid.highest - min(grid.accuracy.values()))
    lines.append(_line(["a random path", "0", f"{random:.2f}", f"{worst:.2f}", "-"]))
    return "\n".join(lines)


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 0; equal values share the mean of theirs.

    Args:
        values: Any numbers.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    found = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for index in order[first : last + 1]:
            found[index] = (first + last) / 2
        first = last + 1
    return found


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one of them does not vary."""
    mean_a, mean_b = fmean(a), fmean(b)
    products = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    scale_a = sum((x - mean_a) ** 2 for x in a)
    scale_b = sum((y - mean_b) ** 2 for y in b)
    return float(products / (scale_a * scale_b) ** 0.5) if scale_a and scale_b else 0.0


def _correlation(grid: Grid, outcome: SearchOutcome) -> float:
    scores = [score(outcome.weights, path) for path in grid.accuracy]
    return correlation(ranks(scores), ranks(list(grid.accuracy.values())))


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
