"""What the searches are worth against the grid: statistics and Markdown tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.ground_truth.grids import GridPoint
from benchmarks.ground_truth.searches import VARIANTS, SearchOutcome
from search_core.derive.graph import Choices


@dataclass(frozen=True)
class Grid:
    """The ground truth of one data set.

    Attributes:
        accuracy: Mean test accuracy over the seeds, by path.
        best: The highest of these.
        mean: What a random path has.
        deviation: Mean standard deviation over the seeds of one path.
        seconds: CPU seconds of training every path once.
    """

    accuracy: dict[Choices, float]
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
        regrets: Accuracy of the best path less that of the chosen one, in percentage points.
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
        best=max(accuracy.values()),
        mean=fmean(accuracy.values()),
        deviation=fmean(stdev(each) for each in several) if several else 0.0,
        seconds=len(points) * fmean(point.seconds for point in timed),
    )


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
                regrets=[100 * (grid.best - grid.accuracy[outcome.path]) for outcome in of_variant],
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
    random = 100 * (grid.best - grid.mean)
    worst = 100 * (grid.best - min(grid.accuracy.values()))
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
    scores = [_score(outcome, path) for path in grid.accuracy]
    return correlation(ranks(scores), ranks(list(grid.accuracy.values())))


def _chosen(grid: Grid, outcome: SearchOutcome) -> Choices:
    """The heaviest path of those that were trained: of a whole grid, the search's own."""
    return max(grid.accuracy, key=lambda path: _score(outcome, path))


def _score(outcome: SearchOutcome, path: Choices) -> float:
    return sum(row[index] for row, index in zip(outcome.weights, path, strict=True))


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
