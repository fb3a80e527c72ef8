"""From what a caller passes to the JSON that is sent."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from dartboard.errors import InvalidSpecError
from dartboard.problems import SPEC_PROBLEM
from search_core.spec import SearchSpec
from search_core.spec.presets import merge
from search_core.spec.retraining import RetrainingSpec


def submission(
    spec: SearchSpec | RetrainingSpec | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of a submission.

    Args:
        spec: The spec, typed or as JSON values.
        fields: Fields that override the spec's, typed or as JSON values.

    Raises:
        InvalidSpecError: Something in it cannot be written as JSON.
    """
    base = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec or {})
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in fields.items()
    }
    body = merge(base, plain)
    _check_is_json(body, "")
    return body


def batch(specs: Iterable[SearchSpec | Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a submission of many searches.

    Args:
        specs: The specs, typed or as JSON values.

    Raises:
        InvalidSpecError: Something in one cannot be written as JSON.
    """
    plain = [
        spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec)
        for spec in specs
    ]
    _check_is_json(plain, "/searches")
    return {"searches": plain}


def _check_is_json(value: object, pointer: str) -> None:
    if isinstance(value, Mapping):
        for key, below in value.items():
            _check_is_json(below, f"{pointer}/{key}")
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            _check_is_json(below, f"{pointer}/{index}")
    elif not isinstance(value, str | int | float | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise InvalidSpecError(
            status=0,
            type=SPEC_PROBLEM,
            title="The spec is not JSON",
            detail=f"{pointer}: {value!r} cannot be written as JSON",
        )
