from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_core.cuboid_size import CuboidCosts
from search_core.spec import HyperCuboidSpace, SearchSpec
from search_core.spec.axes import AXES, layer_axes, layers, without_idle
from search_core.spec.hypercuboid import Candidate
from search_core.spec.layers import Convolution, Normalisation, Pool
from search_core.spec.operations import OPERATIONS

_CHOICES: dict[str, tuple[Any, ...]] = {
    "kernel_size": (3, 5, 1),
    "dilation": (1, 2),
    "mid_multiplier": (1, 4, 0.25),
    "activation": ("relu", "silu", "gelu"),
    "normalisation": ("batch", "group", "layer"),
}


def cuboid(**fields: Any) -> HyperCuboidSpace:
    return HyperCuboidSpace.model_validate({"kind": "hypercuboid", **fields})


@st.composite
def cuboids(draw: st.DrawFn, max_positions: int = 4) -> HyperCuboidSpace:
    axes: dict[str, Any] = {
        "channels": draw(st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True)),
        "operation": draw(
            st.lists(st.sampled_from(list(OPERATIONS)), min_size=1, max_size=3, unique=True)
        ),
    }
    for name in draw(st.sets(st.sampled_from(list(_CHOICES)), max_size=2)):
        choices = st.sampled_from(_CHOICES[name])
        axes[name] = draw(st.lists(choices, min_size=1, max_size=2, unique=True))
    strides = draw(st.lists(st.sampled_from([1, 2]), min_size=1, max_size=2))
    levels = draw(st.integers(1, max_positions // len(strides)))
    return cuboid(axes=axes, strides=strides, levels=levels, final_channels=8)


def test_the_paper_s_instance_is_the_default() -> None:
    space = cuboid()
    assert space.levels == 4
    assert space.strides == (1, 2)
    assert space.channels == (32, 64, 128, 256)
    assert space.positions == tuple(product(range(4), (1, 2)))
    assert len(space.operations) == 32
    assert space.num_candidates == 2
    assert space.operations[0] == (32, 32, Candidate("sharp_sep_conv"))
    assert space.operations[3] == (32, 64, Candidate("resizable_pool"))
    assert space.operations[31] == (256, 256, Candidate("resizable_pool"))
    size = CuboidCosts(space, (3, 32, 32), 10).size(batch_size=64)
    assert size.num_operations == 256
    assert size.num_paths == 67_108_864
    assert size.parameters == 8_930_122


def test_named_axes_are_the_default_spelt_out() -> None:
    axes = {name: list(axis.default) for name, axis in AXES.items()}
    assert cuboid(axes=axes).operations == cuboid().operations


def test_choices_that_change_nothing_are_one_candidate() -> None:
    space = cuboid(
        axes={
            "channels": [4, 8],
            "operation": ["resizable_pool", "sharp_sep_conv", "skip_connect"],
            "activation": ["relu", "silu"],
            "normalisation": ["batch", "group"],
        }
    )
    between_equal = [each.candidate for each in space.operations if each[:2] == (4, 4)]
    # A pool that keeps the channels has neither; a skip has a normalisation at stride 2 only.
    assert between_equal == [
        Candidate("resizable_pool"),
        Candidate("sharp_sep_conv"),
        Candidate("sharp_sep_conv", (("normalisation", "group"),)),
        Candidate("sharp_sep_conv", (("activation", "silu"),)),
        Candidate("sharp_sep_conv", (("activation", "silu"), ("normalisation", "group"))),
        Candidate("skip_connect"),
        Candidate("skip_connect", (("normalisation", "group"),)),
    ]
    assert space.num_candidates is None
    assert len([each for each in space.operations if each[:2] == (4, 8)]) == 8


@given(cuboids())
def test_candidates_are_distinct_and_say_what_they_are(space: HyperCuboidSpace) -> None:
    for given_, out in {each[:2] for each in space.operations}:
        candidates = [each.candidate for each in space.operations if each[:2] == (given_, out)]
        made = [
            tuple(layers(each.operation, given_, out, s, dict(each.settings)) for s in (1, 2))
            for each in candidates
        ]
        assert len(set(made)) == len(made)
        # Every combination of choices is one of them.
        names = tuple(layer_axes())
        for operation in space.choices("operation"):
            for choices in product(*(space.choices(name) for name in names)):
                settings = dict(zip(names, choices, strict=True))
                assert (
                    tuple(layers(str(operation), given_, out, s, settings) for s in (1, 2)) in made
                )
        for each in candidates:
            settings = dict(each.settings)
            assert without_idle(each.operation, given_, out, (1, 2), settings) == settings


@given(cuboids())
def test_paths_are_counted_as_listed(space: HyperCuboidSpace) -> None:
    following = {
        channels: [each.out_channels for each in space.operations if each.in_channels == channels]
        for channels in space.channels
    }
    ends = list(space.channels)
    for _ in space.positions:
        ends = [after for end in ends for after in following[end]]
    assert space.num_paths == len(ends)


@given(cuboids())
def test_a_cuboid_survives_its_json(space: HyperCuboidSpace) -> None:
    again = HyperCuboidSpace.model_validate_json(space.model_dump_json())
    assert again == space
    assert again.operations == space.operations


def test_axes_vary_the_layers_that_they_name() -> None:
    made = layers("sharp_sep_conv", 8, 16, 2, {"kernel_size": 5, "dilation": 2})
    convolutions = [each for each in made if isinstance(each, Convolution)]
    assert [each.kernel_size for each in convolutions] == [5, 1, 5, 1]
    assert [each.dilation for each in convolutions] == [2, 1, 1, 1]
    assert [each.stride for each in convolutions] == [2, 1, 1, 1]
    flooded = layers("sharp_sep_conv", 8, 16, 1, {"mid_multiplier": 4})
    widths = [(e.in_channels, e.out_channels) for e in flooded if isinstance(e, Convolution)]
    assert widths == [(8, 8), (8, 64), (64, 64), (64, 16)]
    assert [e.channels for e in flooded if isinstance(e, Normalisation)] == [64, 16]
    choked = layers("sharp_sep_conv", 8, 16, 1, {"mid_multiplier": 0.01})
    assert [e.channels for e in choked if isinstance(e, Normalisation)] == [1, 16]
    pool = layers("resizable_pool", 8, 16, 1, {"kernel_size": 7, "dilation": 3})
    assert pool[0] == Pool("max", 7, 1)
    assert pool[1] == Convolution(8, 16, 1)


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"axes": {"depth": [1]}}, ("axes", "depth"), "unknown axis 'depth'; registered are: chan"),
        ({"axes": {"kernel_size": [3, 4]}}, ("axes", "kernel_size", 1), "must be odd"),
        ({"axes": {"kernel_size": ["3"]}}, ("axes", "kernel_size", 0), "must be a number"),
        ({"axes": {"kernel_size": [True]}}, ("axes", "kernel_size", 0), "a number or a string"),
        ({"axes": {"kernel_size": [[3]]}}, ("axes", "kernel_size", 0), "a number or a string"),
        ({"axes": {"kernel_size": []}}, ("axes", "kernel_size"), "at least 1"),
        ({"axes": {"channels": [8, 16, 8.0]}}, ("axes", "channels", 2), "8 repeats"),
        ({"axes": {"channels": [0]}}, ("axes", "channels", 0), "from 1 to 4096"),
        ({"axes": {"channels": [8.5]}}, ("axes", "channels", 0), "a whole number"),
        ({"axes": {"operation": ["pool"]}}, ("axes", "operation", 0), "choose from: sharp_sep"),
        ({"axes": {"activation": [1]}}, ("axes", "activation", 0), "unknown activation 1"),
        ({"axes": {"normalisation": ["none"]}}, ("axes", "normalisation", 0), "batch, group, lay"),
        ({"axes": {"mid_multiplier": [0]}}, ("axes", "mid_multiplier", 0), "above 0"),
        ({"axes": {"dilation": [9]}}, ("axes", "dilation", 0), "from 1 to 8"),
        (
            {"axes": {"channels": [*range(1, 65)], "operation": ["conv", "skip_connect", "none"]}},
            ("axes", "operation", 2),
            "unknown operation 'none'",
        ),
        ({"axes": {"channels": [*range(1, 65)], "kernel_size": [1, 3]}}, ("axes",), "16,384 oper"),
        ({"axes": {"channels": [*range(1, 66)]}}, ("axes", "channels"), "at most 64"),
        ({"levels": 0}, ("levels",), "greater than or equal to 1"),
        ({"strides": [1, 3]}, ("strides", 1), "Input should be 1 or 2"),
        ({"nodes": 4}, ("nodes",), "not permitted"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(
    fields: dict[str, Any], path: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        cuboid(**fields)
    error = caught.value.errors()[0]
    place = (*error["loc"], *error.get("ctx", {}).get("path", ()))
    assert place == path
    assert message in error["msg"]


def test_any_image_is_large_enough_but_one_has_no_variance() -> None:
    SearchSpec.model_validate({"space": {"kind": "hypercuboid"}})
    with pytest.raises(ValidationError, match="batch_size of 2 or more"):
        SearchSpec.model_validate({"space": {"kind": "hypercuboid"}, "training": {"batch_size": 1}})
