"""What a spec may ask of a node."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_core.spec import ResourcesSpec
from search_core.spec.resources import from_units, in_units, times, total


def parse(**fields: Any) -> ResourcesSpec:
    return ResourcesSpec.model_validate_json(json.dumps(fields))


@pytest.mark.parametrize("gpus", [0, 0.0001, 0.25, 0.3333, 0.9999, 1, 1.0, 8])
def test_shares_below_one_and_whole_gpus_above(gpus: float) -> None:
    spec = parse(gpus=gpus)
    assert spec.gpus == gpus
    assert ResourcesSpec.model_validate(spec.model_dump(mode="json"), strict=False) == spec


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        ({"gpus": 1.5}, ("gpus",), "1.5: below 1 any share, above 1 whole GPUs"),
        ({"gpus": 0.33333}, ("gpus",), "0.33333: shares are counted in ten-thousandths"),
        ({"gpus": 0.00001}, ("gpus",), "1e-05: shares are counted in ten-thousandths"),
        ({"gpus": -1}, ("gpus",), "greater than or equal to 0"),
        ({"gpus": 65}, ("gpus",), "less than or equal to 64"),
        ({"gpus": "1"}, ("gpus",), "valid number"),
        ({"gpus": True}, ("gpus",), "valid number"),
        ({"custom": {"a100": 0}}, ("custom", "a100"), "greater than 0"),
        ({"custom": {"a100": 0.00001}}, ("custom", "a100"), "ten-thousandths"),
        ({"custom": {"CPU": 1}}, ("custom", "CPU", "[key]"), "CPUs are the field cpus"),
        ({"custom": {"gpu": 1}}, ("custom", "gpu", "[key]"), "GPUs are the field gpus"),
        ({"custom": {"memory": 1}}, ("custom", "memory", "[key]"), "reserved"),
        ({"custom": {"object_store_memory": 1}}, ("custom", "object_store_memory", "[key]"),
         "reserved"),
        ({"custom": {"node:10.0.0.1": 1}}, ("custom", "node:10.0.0.1", "[key]"), "reserved"),
        ({"custom": {"a_group_1": 1}}, ("custom", "a_group_1", "[key]"), "reserved"),
        ({"custom": {"": 1}}, ("custom", "", "[key]"), "at least 1 character"),
        ({"custom": {"x" * 64: 1}}, ("custom", "x" * 64, "[key]"), "at most 63 characters"),
        ({"custom": {"two words": 1}}, ("custom", "two words", "[key]"), "match pattern"),
        ({"custom": {f"r{n}": 1 for n in range(9)}}, ("custom",), "at most 8"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(
    fields: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        parse(**fields)
    (error,) = raised.value.errors()
    assert error["loc"] == place
    assert message in error["msg"]


def test_custom_resources_are_kept_as_they_are_given() -> None:
    custom = {"a100": 1, "accelerator_type:H100": 0.001, "big-scratch.2": 2.5}
    assert parse(custom=custom).custom == custom


@given(st.lists(st.integers(1, 20_000)))
def test_sums_are_those_of_whole_numbers(units: list[int]) -> None:
    amounts = [from_units(each) for each in units]
    assert in_units(total(amounts)) == sum(units)
    assert [in_units(times(amount, 7)) for amount in amounts] == [7 * each for each in units]
