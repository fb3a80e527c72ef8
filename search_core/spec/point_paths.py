"""Where a point may put its values: dotted paths into the spec that it varies."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from search_core.spec.points import plain_spec, point_spec
from search_core.spec.samples import SampleSpec
from search_core.spec.trials import TrialsSpec

INVALID_POINT: Final = "invalid_point"
"""The type of these errors. In its context: `message`; and where a value was refused by the field
that it was put into, `given`, the rest of the point, and `error`, the field's own error."""

Place = tuple[str | int, ...]

_FIXED: Final[Mapping[str, str]] = {
    "name": "all trials have the name of what they belong to; use labels to tell searches apart",
    "labels": "labels belong to the search, not to its trials",
    "priority": "all trials wait in the queue together; submit them apart to give each its own "
    "priority",
    "resources": "the queue makes the same room for each trial; submit them apart to give each its "
    "own resources",
    "preset": "a preset is a whole spec to start from; submit one search for each",
    "trials": "trials cannot vary themselves; list seeds in trials.seeds",
}


def path_errors(spec: Any) -> Iterator[InitErrorDetails]:
    """An error for each path of the grid or of a sample that leads nowhere, or may not vary."""
    plain = plain_spec(spec)
    trials: TrialsSpec = spec.trials
    paths = [*trials.grid, *trials.sample]
    # What may have any key, such as the axes of a HyperCuboid, may get one that is not there.
    for section in ("grid", "sample"):
        for path, values in getattr(trials, section).items():
            message = _path_problem(plain, path, paths)
            overlaps = any(path.startswith(f"{other}.") for other in paths)
            if message is not None and (overlaps or not _takes_any_key(spec, plain, path, values)):
                yield point_error((section, path), values, message=message)


def _path_problem(plain: Mapping[str, Any], path: str, paths: Sequence[str]) -> str | None:
    parts = path.split(".")
    if parts[0] in _FIXED:
        return f"{parts[0]} cannot vary: {_FIXED[parts[0]]}"
    for other in paths:
        if path.startswith(f"{other}."):
            return f"{other} varies as a whole and would set {path} too; vary one of them"
    place: Any = plain
    for number, name in enumerate(parts):
        above = ".".join(parts[:number])
        if not isinstance(place, Mapping):
            return f"{above} is not an object of this spec, it has no field {name!r}; vary {above}"
        if name not in place:
            fields = [field for field in place if above or field not in _FIXED]
            close = difflib.get_close_matches(name[:100], fields, n=1)
            known = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(fields)}"
            return f"unknown field {name[:60]!r}{f' of {above}' if above else ''}; {known}"
        place = place[name]
    return None


def _takes_any_key(spec: Any, plain: Mapping[str, Any], path: str, values: Any) -> bool:
    """Whether a path ends at a key that is not there, of an object that may have any key."""
    *above, last = path.split(".")
    place: Any = plain
    for name in above:
        place = place.get(name) if isinstance(place, Mapping) else None
    if not above or above[0] in _FIXED or not isinstance(place, Mapping) or last in place:
        return False
    try:
        point_spec(spec, {path: values.ends[0] if isinstance(values, SampleSpec) else values[0]})
    except ValidationError as error:
        return not any(
            item["type"] == "extra_forbidden" and item["loc"][-1] == last
            for item in error.errors(include_url=False)
        )
    return True


def point_error(place: Place, value: Any, **context: Any) -> InitErrorDetails:
    """An error about a value of the grid or of a sample.

    Args:
        place: Where the value stands, under `trials`.
        value: The value.
        **context: `message`, and what else an `INVALID_POINT` has.
    """
    kind = PydanticCustomError(INVALID_POINT, "{message}", context)
    return InitErrorDetails(type=kind, loc=("trials", *place), input=value)
