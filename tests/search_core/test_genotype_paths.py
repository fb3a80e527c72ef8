"""Paths as genotypes, and what holds of both kinds."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_core.errors import InvalidGenotypeError
from search_core.genotype import Genotype, PathGenotype, PathStep, json_schema, kind_of, parse
from search_core.spec.axes import layer_axes
from search_core.spec.operations import OPERATIONS
from tests.search_core.test_genotype import genotypes

CHOICES: dict[str, tuple[Any, ...]] = {
    "kernel_size": (1, 3, 5, 7),
    "dilation": (1, 2, 3),
    "mid_multiplier": (1, 2, 0.25, 1.5),
    "activation": ("relu", "leaky_relu", "relu6", "silu", "hardswish", "gelu"),
    "normalisation": ("batch", "group", "layer"),
}
STEP: dict[str, Any] = {
    "level": 0,
    "stride": 1,
    "in_channels": 4,
    "out_channels": 4,
    "operation": "sharp_sep_conv",
}


@st.composite
def paths(draw: st.DrawFn, max_channels: int = 24) -> PathGenotype:
    channels = st.integers(1, max_channels)
    steps: list[PathStep] = []
    level, given_channels = 0, draw(channels)
    for _ in range(draw(st.integers(1, 5))):
        level += draw(st.integers(0, 1))
        names = draw(st.sets(st.sampled_from(list(CHOICES))))
        step = PathStep(
            level=level,
            stride=draw(st.sampled_from([1, 2])),
            in_channels=given_channels,
            out_channels=draw(channels),
            operation=draw(st.sampled_from(list(OPERATIONS))),
            settings={name: draw(st.sampled_from(CHOICES[name])) for name in names},
        )
        steps.append(step)
        given_channels = step.out_channels
    return PathGenotype(final_channels=draw(channels), steps=tuple(steps))


def path(**changes: Any) -> PathGenotype:
    """A path of one step, as JSON has it."""
    return PathGenotype.model_validate({"steps": [{**STEP, **changes}]})


def test_the_choices_here_are_of_every_axis() -> None:
    assert set(CHOICES) == set(layer_axes())


@given(paths())
def test_json_and_text_round_trip(genotype: PathGenotype) -> None:
    assert parse(genotype.to_json()) == genotype
    assert parse(genotype.to_text()) == genotype
    assert parse(f"\n {genotype.to_text()} ") == genotype
    assert parse(genotype.canonical_json()).hash == genotype.hash
    value = json.loads(genotype.to_json())
    del value["kind"], value["version"]
    assert kind_of(value) == "path"
    assert parse(json.dumps(value, indent=2)) == genotype


@given(paths(), paths())
def test_the_hash_tells_paths_apart(one: PathGenotype, other: PathGenotype) -> None:
    def content(genotype: PathGenotype) -> tuple[Any, ...]:
        return genotype.final_channels, [
            (step.level, step.stride, step.in_channels, step.out_channels, step.operation,
             sorted(step.settings.items()))
            for step in genotype.steps
        ]  # fmt: skip

    assert (one.hash == other.hash) == (content(one) == content(other)) == (one == other)
    assert one.hash == path_of(one.steps, one.final_channels).hash


def path_of(steps: tuple[PathStep, ...], final_channels: int) -> PathGenotype:
    return PathGenotype(steps=steps, final_channels=final_channels)


@given(paths(), st.data())
def test_settings_that_change_nothing_do_not_change_the_hash(
    genotype: PathGenotype, data: st.DataObject
) -> None:
    value = json.loads(genotype.to_json())
    for step, plain in zip(genotype.steps, value["steps"], strict=True):
        for name in data.draw(st.sets(st.sampled_from(list(CHOICES)))):
            choice = data.draw(st.sampled_from(CHOICES[name]))
            varied = step.model_copy(update={"settings": {**step.settings, name: choice}})
            if varied.layers == step.layers:
                plain["settings"].setdefault(name, choice)
                # One at a time: two idle settings may wake each other up.
                break
    assert parse(json.dumps(value)).hash == genotype.hash


@pytest.mark.parametrize(
    ("idle", "plain"),
    [
        ({"settings": {"kernel_size": 3, "activation": "relu"}}, {}),
        ({"settings": {"kernel_size": 3.0}}, {}),
        ({"settings": {"mid_multiplier": 1.0, "dilation": 1, "normalisation": "batch"}}, {}),
        (
            {"operation": "resizable_pool", "settings": {"activation": "gelu", "dilation": 2}},
            {"operation": "resizable_pool"},
        ),
        (
            {"operation": "skip_connect", "settings": {"normalisation": "group"}},
            {"operation": "skip_connect"},
        ),
        # There is nothing between the taps of one tap.
        (
            {"operation": "conv", "settings": {"kernel_size": 1, "dilation": 2}},
            {"operation": "conv", "settings": {"kernel_size": 1}},
        ),
        # 4.4 channels are 4.
        ({"settings": {"mid_multiplier": 1.1}}, {}),
    ],
)
def test_idle_settings_are_dropped(idle: dict[str, Any], plain: dict[str, Any]) -> None:
    assert path(**idle) == path(**plain)
    assert path(**idle).hash == path(**plain).hash
    assert path(**idle).to_json() == path(**plain).to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"kernel_size": 5}},
        {"settings": {"mid_multiplier": 0.5}},
        {"settings": {"activation": "gelu"}},
        {"operation": "resizable_pool", "settings": {"kernel_size": 5}},
        {"stride": 2},
        {"level": 1},
    ],
)
def test_what_matters_is_in_the_hash(changes: dict[str, Any]) -> None:
    plain = path(**{name: value for name, value in changes.items() if name == "operation"})
    assert path(**changes).hash != plain.hash


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps: Tuple should have at least 1 item"),
        ([{}], "steps.0.level: Field required"),
        ([{**STEP, "operation": "magic"}], "steps.0.operation: unknown operation 'magic'; known"),
        ([STEP, {**STEP, "stride": 3}], "steps.1.stride: Input should be 1 or 2"),
        ([{**STEP, "stride": True}], "steps.0.stride: Input should be a valid integer"),
        ([{**STEP, "in_channels": "4"}], "steps.0.in_channels: Input should be a valid integer"),
        ([{**STEP, "in_channels": 0}], "steps.0.in_channels: Input should be greater"),
        ([{**STEP, "colour": 1}], "steps.0.colour: Extra inputs"),
        (
            [STEP, {**STEP, "in_channels": 8}],
            "steps.1.in_channels: step 1 takes 8 channels, but the step before puts out 4",
        ),
        (
            [{**STEP, "level": 2}, {**STEP, "level": 1}],
            "steps.1.level: step 1 is on level 1, after one on level 2",
        ),
        (
            [{**STEP, "settings": {"magic": 1}}],
            "steps.0.settings.magic: unknown axis 'magic'; known are: kernel_size",
        ),
        (
            [{**STEP, "settings": {"channels": 32}}],
            "steps.0.settings.channels: unknown axis",
        ),
        (
            [{**STEP, "settings": {"kernel_size": 4}}],
            "steps.0.settings.kernel_size: a kernel_size of 4: it must be odd",
        ),
        (
            [{**STEP, "settings": {"kernel_size": True}}],
            "steps.0.settings.kernel_size: Input should be a number or a string",
        ),
        (
            [{**STEP, "settings": {"mid_multiplier": 10**400}}],
            "steps.0.settings.mid_multiplier: a mid_multiplier of 1000",
        ),
        (
            [{**STEP, "settings": {"activation": "tanh"}}],
            "steps.0.settings.activation: unknown activation 'tanh'; choose from: relu",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(steps: list[dict[str, Any]], message: str) -> None:
    for kind in ({"kind": "path"}, {}):
        with pytest.raises(InvalidGenotypeError) as caught:
            parse(json.dumps({**kind, "steps": steps}))
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Path(steps=[(0, 1, 4, 4)])", "steps[0]: expected a tuple (level, stride,"),
        ("Path(steps=[(0, 1, 4, 4, 'conv', {}, 1)])", "steps[0]: expected a tuple"),
        ("Path(steps=[(0, 1, 4, 4, 'conv', 5)])", "steps.0.settings: Input should be a valid dict"),
        ("Path(steps=[(0, 1, 4, 4, 'conv'), [0]])", "steps[1]: expected a tuple"),
        ("Path(steps=3)", "steps: Input should be a valid tuple"),
        ("Path(kind='cell', steps=[])", "Path(...) takes final_channels, steps only"),
        ("Path(steps=[(0, 1, 4, 4, print(1))])", "steps: expected a list of literal values"),
        ("Path(normal=[])", "steps: Field required"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidGenotypeError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and indices to every part of a JSON value."""
    if not isinstance(value, dict | list):
        return
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*place, key)
        yield from places(value[key], (*place, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats(-1, 9) | st.text(max_size=3)
    | st.sampled_from(["1", "3", 1.0, 4.0, "relu", "conv", "path", "cell"]),
    lambda parts: st.lists(parts, max_size=2)
    | st.dictionaries(
        st.sampled_from(["primitive", "source", "steps", "kernel_size"]), parts, max_size=2
    ),
    max_leaves=3,
)  # fmt: skip


@given(st.one_of(genotypes(), paths()), st.data())
def test_the_schema_accepts_what_parse_accepts(genotype: Genotype, data: st.DataObject) -> None:
    value = deepcopy(json.loads(genotype.to_json()))
    jsonschema.validate(value, json_schema())
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(list(places(value))))
        around = value
        for key in way:
            around = around[key]
        if isinstance(around, dict) and data.draw(st.booleans()):
            del around[last]
        else:
            around[last] = data.draw(JSON)
    try:
        parse(json.dumps(value))
    except InvalidGenotypeError:
        return
    jsonschema.validate(value, json_schema())


@pytest.mark.parametrize("operation", [0, 3, "magic"])
def test_the_schema_refuses_what_is_no_operation(operation: object) -> None:
    value = {"steps": [{**STEP, "operation": operation}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, json_schema())
