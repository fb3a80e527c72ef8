from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_core.costs import Cost
from search_core.cuboid_size import path_cost
from search_core.derive import (
    CostMeasure,
    beam_paths,
    best_paths,
    heaviest_path,
    heaviest_path_within,
    path_score,
)
from search_core.genotype import PathGenotype, PathStep
from search_core.spec import HyperCuboidSpace
from search_core.spec.hypercuboid import CuboidOperation
from tests.search_core.test_hypercuboid_spec import cuboid, cuboids

Route = tuple[CuboidOperation, ...]

_SHAPE = (1, 7, 5)
_MEASURES: tuple[CostMeasure, ...] = ("parameters", "multiply_adds", "paper_multiply_adds")


def routes(space: HyperCuboidSpace) -> Iterator[tuple[int, ...]]:
    """Every path, in the space's order."""

    def onwards(path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(path) == len(space.positions):
            yield path
            return
        for index, operation in enumerate(space.operations):
            if not path or operation.in_channels == space.operations[path[-1]].out_channels:
                yield from onwards((*path, index))

    return onwards(())


def genotype(space: HyperCuboidSpace, route: tuple[int, ...]) -> PathGenotype:
    chosen = [space.operations[index] for index in route]
    return PathGenotype(
        final_channels=space.final_channels,
        steps=tuple(
            PathStep(
                level=position.level,
                stride=position.stride,
                in_channels=each.in_channels,
                out_channels=each.out_channels,
                operation=each.candidate.operation,
                settings=dict(each.candidate.settings),
            )
            for position, each in zip(space.positions, chosen, strict=True)
        ),
    )


def score(weights: list[list[float]], route: tuple[int, ...]) -> float:
    return sum(row[index] for row, index in zip(weights, route, strict=True))


def draw_weights(data: st.DataObject, space: HyperCuboidSpace) -> list[list[float]]:
    """Sixteenths, so that sums are exact in floats and many paths are equal."""
    row = st.lists(
        st.integers(0, 15).map(lambda value: value / 16),
        min_size=len(space.operations),
        max_size=len(space.operations),
    )
    return [data.draw(row) for _ in space.positions]


small = cuboids(max_positions=3).filter(lambda space: space.num_paths <= 2000)


@settings(max_examples=60)
@given(small, st.data())
def test_best_paths_are_those_of_brute_force(space: HyperCuboidSpace, data: st.DataObject) -> None:
    weights = draw_weights(data, space)
    # sorted() is stable: of equal ones the first in the space's order stays first.
    expected = sorted(routes(space), key=lambda route: -score(weights, route))
    k = data.draw(st.integers(1, 60))
    found = best_paths(weights, space, k)
    assert [each.genotype for each in found] == [genotype(space, each) for each in expected[:k]]
    assert [each.score for each in found] == [score(weights, each) for each in expected[:k]]
    assert heaviest_path(weights, space) == found[0].genotype
    assert heaviest_path(torch.tensor(weights), space) == found[0].genotype


@settings(max_examples=60)
@given(small, st.data())
def test_the_heaviest_within_a_budget_is_that_of_brute_force(
    space: HyperCuboidSpace, data: st.DataObject
) -> None:
    weights = draw_weights(data, space)
    measure = data.draw(st.sampled_from(_MEASURES))
    all_routes = list(routes(space))
    costs = {
        route: getattr(path_cost(genotype(space, route), _SHAPE, 10), measure)
        for route in all_routes
    }
    budget = data.draw(st.sampled_from(sorted(set(costs.values()))))
    found = heaviest_path_within(
        weights, space, budget, measure=measure, image_shape=_SHAPE, num_classes=10
    )
    # Of equal scores the cheaper one; of those, the first.
    best = min(
        (route for route in all_routes if costs[route] <= budget),
        key=lambda route: (-score(weights, route), costs[route]),
    )
    assert found.genotype == genotype(space, best)
    assert found.score == score(weights, best)


def test_a_budget_that_no_path_fits_says_what_the_cheapest_costs() -> None:
    space = cuboid(axes={"channels": [4, 8]}, levels=1)
    weights = torch.ones((1, 2, 2, 2, 2))
    cheapest = min(
        path_cost(genotype(space, route), _SHAPE, 10).parameters for route in routes(space)
    )
    found = heaviest_path_within(
        weights, space, cheapest, measure="parameters", image_shape=_SHAPE, num_classes=10
    )
    assert path_cost(found.genotype, _SHAPE, 10).parameters == cheapest
    with pytest.raises(ValueError, match=f"fits {cheapest - 1:,} parameters.*has {cheapest:,}"):
        heaviest_path_within(
            weights, space, cheapest - 1, measure="parameters", image_shape=_SHAPE, num_classes=10
        )


@settings(max_examples=40)
@given(small, st.data())
def test_a_wide_beam_is_exact_and_a_narrow_one_is_greedy(
    space: HyperCuboidSpace, data: st.DataObject
) -> None:
    weights = draw_weights(data, space)
    every = best_paths(weights, space, space.num_paths)
    assert beam_paths(weights, space, space.num_paths) == every
    [greedy] = beam_paths(weights, space, 1)
    first = max(range(len(space.operations)), key=lambda index: weights[0][index])
    assert greedy.genotype.steps[0] == genotype(space, every_from(space, first)).steps[0]
    assert greedy.score <= every[0].score


def every_from(space: HyperCuboidSpace, first: int) -> tuple[int, ...]:
    return next(route for route in routes(space) if route[0] == first)


def test_greed_misses_what_lies_behind_a_light_operation() -> None:
    space = cuboid(
        axes={"channels": [4, 8], "operation": ["conv"]}, levels=2, strides=[2], final_channels=8
    )
    # Operations: 4-4, 4-8, 8-4, 8-8.
    weights = [[0.4, 0.3, 0.15, 0.15], [0.1, 0.1, 0.1, 0.7]]
    assert beam_paths(weights, space, 1)[0].score == pytest.approx(0.5)
    assert [step.out_channels for step in heaviest_path(weights, space).steps] == [8, 8]
    assert beam_paths(weights, space, 2)[0].score == pytest.approx(1.0)


def test_the_paper_s_shape_and_order() -> None:
    space = cuboid()
    weights = torch.zeros((4, 2, 4, 4, 2))
    chosen = [
        (0, 0, 3, 2, 1),
        (0, 1, 2, 3, 1),
        (1, 0, 3, 0, 1),
        (1, 1, 0, 3, 1),
        (2, 0, 3, 3, 0),
        (2, 1, 3, 3, 1),
        (3, 0, 3, 3, 1),
        (3, 1, 3, 3, 1),
    ]
    for place in chosen:
        weights[place] = 1.0
    found = heaviest_path(weights, space)
    assert [
        (
            step.level,
            step.stride - 1,
            space.channels.index(step.in_channels),
            space.channels.index(step.out_channels),
            ("sharp_sep_conv", "resizable_pool").index(step.operation),
        )
        for step in found.steps
    ] == chosen
    assert heaviest_path(weights.flatten(2).flatten(0, 1), space) == found
    assert path_score(weights, space, found) == 8.0
    assert found.final_channels == 768


def test_equal_weights_give_the_first_path() -> None:
    first = heaviest_path(torch.full((4, 2, 4, 4, 2), 1 / 32), cuboid())
    assert {(step.in_channels, step.out_channels, step.operation) for step in first.steps} == {
        (32, 32, "sharp_sep_conv")
    }


def test_the_paper_s_instance_under_a_budget() -> None:
    space = cuboid()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((4, 2, 32), generator=generator).softmax(-1).view(4, 2, 4, 4, 2)
    best = best_paths(weights, space, 1000)
    shape = (3, 32, 32)
    costs: list[Cost] = [path_cost(each.genotype, shape, 10) for each in best]
    for measure in _MEASURES:  # each among 67 million paths
        # A budget that the 500th best path fits: one of the first 500 is the answer.
        budget = min(getattr(cost, measure) for cost in costs[:500])
        expected = next(
            each for each, cost in zip(best, costs, strict=True) if getattr(cost, measure) <= budget
        )
        found = heaviest_path_within(
            weights, space, budget, measure=measure, image_shape=shape, num_classes=10
        )
        assert found == expected


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros((2, 2, 2, 2)), r"shape \[2, 2, 2, 2\]; this space needs \[1, 2, 2, 2, 2\] or"),
        (torch.zeros((2, 7)), r"or \[2, 8\]"),
        ([[0.0] * 8, [0.0] * 7], r"shape \[2, -1\]"),
        (torch.full((2, 8), float("nan")), "not finite"),
    ],
)
def test_weights_of_another_space_are_refused(weights: Any, message: str) -> None:
    space = cuboid(axes={"channels": [4, 8]}, levels=1)
    with pytest.raises(ValueError, match=message):
        heaviest_path(weights, space)


def test_senseless_requests_are_refused() -> None:
    space = cuboid(axes={"channels": [4, 8]}, levels=1)
    weights = torch.zeros((2, 8))
    with pytest.raises(ValueError, match="at least one"):
        best_paths(weights, space, 0)
    with pytest.raises(ValueError, match="at least one path"):
        beam_paths(weights, space, 0)
    longer = heaviest_path(torch.zeros((4, 8)), cuboid(axes={"channels": [4, 8]}, levels=2))
    with pytest.raises(ValueError, match="a path of 4 steps in a cuboid of 2 positions"):
        path_score(weights, space, longer)
    other = heaviest_path(torch.zeros((2, 2)), cuboid(axes={"channels": [5]}, levels=1))
    with pytest.raises(ValueError, match="step 0 of the path is no operation of this cuboid"):
        path_score(weights, space, other)
