import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_core.spec import PRESETS, AlgorithmSpec, SearchSpec
from search_core.spec.presets import merge
from search_core.spec.primitives import PRIMITIVES

_KINDS = ("darts", "sharp_darts", "sharper_darts")
_RATES = st.floats(1e-6, 1.0)


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    space: dict[str, Any] = {
        "kind": draw(st.sampled_from(_KINDS)),
        "channels": draw(st.integers(1, 64)),
        "cells": draw(st.integers(3, 20)),
        "nodes": draw(st.integers(1, 6)),
    }
    if draw(st.booleans()):
        family = draw(st.sampled_from(sorted(PRIMITIVES)))
        names = st.lists(st.sampled_from(PRIMITIVES[family]), min_size=2, unique=True)
        space |= {"family": family, "primitives": draw(names)}
    return space


@st.composite
def specs(draw: st.DrawFn) -> SearchSpec:
    learning_rate = draw(_RATES)
    lowest = st.floats(0, learning_rate)
    epochs = draw(st.integers(1, 200))
    schedule = draw(
        st.one_of(
            st.just({"kind": "constant"}),
            st.fixed_dictionaries({"kind": st.just("cosine"), "min_learning_rate": lowest}),
            st.fixed_dictionaries(
                {
                    "kind": st.just("cosine_power"),
                    "min_learning_rate": lowest,
                    "power": st.floats(1, 100),
                    "warmup_epochs": st.integers(0, epochs - 1),
                }
            ),
        )
    )
    weighting = draw(st.sampled_from(["scalar", "max_w"]))
    values = {
        "preset": draw(st.sampled_from([None, *PRESETS])),
        "name": draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)),
        "space": draw(spaces()),
        "dataset": {"train_portion": draw(st.floats(0.1, 0.9))},
        "algorithm": {
            "order": draw(st.sampled_from(["first", "second"])),
            "weighting": weighting,
            "detach_max": weighting == "max_w" and draw(st.booleans()),
            "architecture_learning_rate": draw(_RATES),
            "exclude_none": draw(st.booleans()),
        },
        "training": {
            "epochs": epochs,
            "batch_size": draw(st.integers(1, 128)),
            "learning_rate": learning_rate,
            "schedule": schedule,
        },
        "trials": {"seeds": draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, unique=True))},
        "priority": draw(st.integers(-100, 100)),
        "labels": draw(st.dictionaries(st.sampled_from(["a", "b/c"]), st.just("x.y"))),
    }
    return SearchSpec.model_validate_json(json.dumps(values))


@given(specs())
def test_json_round_trip(spec: SearchSpec) -> None:
    text = spec.model_dump_json()
    again = SearchSpec.model_validate_json(text)
    assert again == spec
    assert again.model_dump_json() == text


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_what_is_not_given(name: str) -> None:
    kind = PRESETS[name].spec["space"]["kind"]
    spec = SearchSpec.model_validate({"preset": name, "space": {"kind": kind}})
    expected = merge(PRESETS[name].spec, {"preset": name})
    assert spec == SearchSpec.model_validate(expected)
    shorter = {"preset": name, "space": {"kind": kind}, "training": {"epochs": 6}}
    assert SearchSpec.model_validate(shorter).training.epochs == 6


def test_detach_max_without_max_w_would_do_nothing() -> None:
    assert AlgorithmSpec(weighting="max_w", detach_max=True).detach_max
    with pytest.raises(ValidationError, match="detach_max has no effect"):
        AlgorithmSpec(detach_max=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"kind": "darts", "primitives": ["flood_conv_3x3"]}}, "unknown primitive"),
        ({"space": {"kind": "darts", "primitives": ["none"]}}, "at least one that is not"),
        ({"space": {"kind": "darts", "cells": 2}}, "greater than or equal to 3"),
        ({"training": {"batch_size": 719}}, "718 images"),
        ({"training": {"epochs": "8"}}, "valid integer"),
        ({"training": {"epoch": 8}}, "Extra inputs"),
        ({"preset": "nonesuch"}, "choose from: digits-quick"),
        ({"trials": {"seeds": [1, 1]}}, "must not repeat"),
    ],
)
def test_what_cannot_be_searched_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchSpec.model_validate({"space": {"kind": "darts"}, **change})
