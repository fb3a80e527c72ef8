"""Room on nodes, held against a search through every way of placing the trials."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.room import Capacity, Node, has_room, missing, num_places

_SHARES = (0, 0.1, 0.3, 0.5, 0.7, 1, 2)

needs = st.builds(
    Node,
    cpus=st.integers(1, 3),
    gpus=st.sampled_from(_SHARES),
    custom=st.dictionaries(st.sampled_from("ab"), st.sampled_from((0.1, 0.3, 1, 2)), max_size=2),
)
nodes = st.builds(
    Node,
    cpus=st.integers(1, 6),
    gpus=st.integers(0, 2),
    custom=st.dictionaries(st.sampled_from("ab"), st.sampled_from((0.3, 1, 2)), max_size=2),
)
clusters = st.lists(nodes, min_size=1, max_size=2).map(tuple).map(Capacity)


def tenths(amount: float) -> int:
    """Every amount of these tests is one of tenths."""
    tenths = round(amount * 10)
    assert abs(amount * 10 - tenths) < 1e-9
    return tenths


def fit_on_one(node: Node, trials: Sequence[Node]) -> bool:
    """Whether a node runs trials side by side, whichever GPUs they are given."""
    if sum(tenths(trial.cpus) for trial in trials) > tenths(node.cpus):
        return False
    for name in {name for trial in trials for name in trial.custom}:
        wanted = sum(tenths(trial.custom.get(name, 0)) for trial in trials)
        if wanted > tenths(node.custom.get(name, 0)):
            return False
    num_gpus = int(node.gpus)
    whole = sum(int(trial.gpus) for trial in trials if trial.gpus >= 1)
    shares = [tenths(trial.gpus) for trial in trials if 0 < trial.gpus < 1]
    for places in product(range(num_gpus), repeat=len(shares)):
        loads = [0] * num_gpus
        for share, place in zip(shares, places, strict=True):
            loads[place] += share
        if all(load <= 10 for load in loads) and loads.count(0) >= whole:
            return True
    return False


def fit(capacity: Capacity, trials: Sequence[Node]) -> bool:
    """Whether there is any way at all to place the trials on the nodes."""
    for places in product(range(len(capacity.nodes)), repeat=len(trials)):
        on = [
            [trial for trial, place in zip(trials, places, strict=True) if place == index]
            for index in range(len(capacity.nodes))
        ]
        if all(map(fit_on_one, capacity.nodes, on)):
            return True
    return False


@given(clusters, st.lists(needs, max_size=4), needs)
def test_where_it_sees_room_there_is_a_way_to_place_all(
    capacity: Capacity, held: list[Node], wanted: Node
) -> None:
    placeable = [need for need in held if fit(capacity, [need])]
    if has_room(capacity, held, wanted):
        assert fit(capacity, [*placeable, wanted])


@given(clusters, st.integers(0, 5), needs)
def test_among_equal_trials_it_sees_all_room_there_is(
    capacity: Capacity, num_held: int, wanted: Node
) -> None:
    held = [wanted] * num_held
    expected = fit(capacity, [wanted]) and fit(capacity, [*held, wanted])
    assert has_room(capacity, held, wanted) is expected


@given(nodes, needs)
def test_a_node_runs_as_many_as_can_be_placed_and_no_more(node: Node, need: Node) -> None:
    places = num_places(node, need)
    assert fit_on_one(node, [need] * places)
    assert not fit_on_one(node, [need] * (places + 1))


@pytest.mark.parametrize(
    ("node", "held", "wanted", "fits"),
    [
        # In floats 0.1 * 3 is above 0.3, and what ten tenths leave of 1 is not 0.
        (Node(9, 1), [Node(1, 0.1)] * 7, Node(1, 0.3), True),
        (Node(99, 1), [Node(1, 0.1)] * 9, Node(1, 0.1), True),
        (Node(99, 1), [Node(1, 0.1)] * 10, Node(1, 0.1), False),
        (Node(9, 0, custom={"a": 1}), [Node(1, custom={"a": 0.1})] * 7, Node(1, custom={"a": 0.3}),
         True),
        # A share is on one GPU, and a whole one is whole.
        (Node(9, 2), [Node(1, 0.6)] * 2, Node(1, 0.6), False),
        (Node(9, 2), [Node(1, 0.5)] * 2, Node(1, 1), True),
        (Node(9, 2), [Node(1, 0.5)] * 3, Node(1, 1), False),
        # What no node can hold takes no room of others: its own node has left.
        (Node(2), [Node(1, 1)], Node(2), True),
        (Node(2), [Node(1)], Node(2), False),
    ],
)  # fmt: skip
def test_room_beside_what_is_held(node: Node, held: list[Node], wanted: Node, fits: bool) -> None:
    assert has_room(Capacity((node,)), held, wanted) is fits


@pytest.mark.parametrize(
    ("cluster", "need", "sentence"),
    [
        ([], Node(1), "there is no node"),
        ([Node(4)], Node(1, custom={"a100": 1}), "no node has 1 a100"),
        ([Node(4)], Node(1, 0.5), "no node has 0.5 GPUs"),
        ([Node(1)], Node(4, 2, custom={"a100": 1}), "no node has 4 CPUs, 2 GPUs and 1 a100"),
        ([Node(8), Node(1, 1)], Node(4, 1), "no node has 4 CPUs and 1 GPU together"),
        # Nobody has the GPU; that one node has too few CPUs besides is no news.
        ([Node(8), Node(1)], Node(4, 1), "no node has 1 GPU"),
    ],
)
def test_what_is_missing_is_named(cluster: list[Node], need: Node, sentence: str) -> None:
    assert missing(Capacity(tuple(cluster)), need) == sentence


def test_totals_are_exact() -> None:
    tenth: dict[str, Any] = {"gpus": 0.1, "custom": {"a": 0.1}}
    capacity = Capacity(tuple(Node(1, **tenth) for _ in range(3)))
    assert (capacity.gpus, capacity.custom) == (0.3, {"a": 0.3})
