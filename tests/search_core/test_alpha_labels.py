"""Labels fit the tables that a supernet reports, and say what derivation reads in them."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from search_core.alpha_labels import alpha_labels
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import Space
from search_core.weighting import scalar

SPACES: list[dict[str, Any]] = [
    {"kind": "darts", "channels": 2, "cells": 3, "nodes": 3},
    {"kind": "sharp_darts", "channels": 2, "cells": 3, "nodes": 2},
    {
        "kind": "hypercuboid",
        "axes": {"channels": [2, 4], "kernel_size": [3, 5], "activation": ["relu", "silu"]},
        "levels": 2,
        "final_channels": 4,
    },
]


@pytest.mark.parametrize("fields", SPACES, ids=lambda fields: fields["kind"])
def test_every_weight_has_a_row_and_a_column(fields: dict[str, Any]) -> None:
    adapter: TypeAdapter[Space] = TypeAdapter(Space)
    space = adapter.validate_python(fields)
    network = build_supernet(
        space,
        (1, 8, 8),
        10,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    labels = alpha_labels(space)
    weights = network.architecture_weights()
    assert list(labels) == list(weights)
    for name, table in weights.items():
        assert tuple(table.shape) == (len(labels[name].rows), len(labels[name].columns))
        for side in (labels[name].rows, labels[name].columns):
            texts = [label.text for label in side]
            assert len(set(texts)) == len(texts)
            assert not any("," in text for text in texts)


def test_the_edges_of_a_cell_come_node_by_node() -> None:
    adapter: TypeAdapter[Space] = TypeAdapter(Space)
    labels = alpha_labels(adapter.validate_python({"kind": "darts", "nodes": 2}))["normal"]
    assert [row.text for row in labels.rows] == [
        "input 0 to node 0",
        "input 1 to node 0",
        "input 0 to node 1",
        "input 1 to node 1",
        "node 0 to node 1",
    ]
    assert labels.rows[-1].facts == {"node": 1, "source": 2}
    assert labels.columns[0].facts == {"primitive": "none"}


def test_an_operation_says_all_that_it_is() -> None:
    adapter: TypeAdapter[Space] = TypeAdapter(Space)
    space = adapter.validate_python(
        {"kind": "hypercuboid", "axes": {"channels": [8, 16], "kernel_size": [3, 5]}, "levels": 1}
    )
    labels = alpha_labels(space)["cuboid"]
    assert [row.text for row in labels.rows] == ["level 0 stride 1", "level 0 stride 2"]
    facts = {
        "in_channels": 8,
        "out_channels": 16,
        "operation": "resizable_pool",
        "settings": {"kernel_size": 5},
    }
    (column,) = [label for label in labels.columns if label.facts == facts]
    assert column.text == "8 to 16 resizable_pool kernel_size=5"
