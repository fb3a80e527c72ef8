"""From pydantic's errors about a spec to JSON pointers into the body that the user sent."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from search_core.spec.point_paths import INVALID_POINT
from service.problems import FieldProblem
from service.sentences import choose, sentence, shown

MOST_ERRORS: Final = 100
"""A body can hold a hundred thousand unknown fields; nobody reads on after these."""

_KEY_MARK = "[key]"


def field_problems(model: type[BaseModel], error: ValidationError) -> list[FieldProblem]:
    """What is wrong with a body, field by field.

    Args:
        model: The model that refused the body.
        error: What it raised.

    Returns:
        A problem for each error, at most `MOST_ERRORS`.
    """
    details = error.errors(include_url=False)
    broken = {item["loc"] for item in details}
    problems: list[FieldProblem] = []
    for item in details:
        # Pydantic counts a list's valid items: [-1] is also "too short". That says nothing new.
        if item["type"] == "too_short" and any(
            len(loc) > len(item["loc"]) and loc[: len(item["loc"])] == item["loc"] for loc in broken
        ):
            continue
        # A preset brings what is required: once its name is right, the rest may be complete.
        if item["type"] == "missing" and len(item["loc"]) == 1 and ("preset",) in broken:
            continue
        problems.append(_field_problem(model, item))
        if len(problems) == MOST_ERRORS:
            break
    return problems


def pointer(path: Sequence[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path of keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _field_problem(model: type[BaseModel], item: ErrorDetails) -> FieldProblem:
    path, around = _locate(model, item["loc"])
    context = item.get("ctx", {})
    # A model validator's error stands at its model and names the field below it.
    path += context.get("path", ())
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append(str(context["discriminator"]).strip("'"))
    message = _message(item, path, around)
    if item["type"] == INVALID_POINT and "error" in context:
        # What the value's own field says about it, in this module's words.
        message = context["given"] + _field_problem(model, context["error"]).message
    if len(item["loc"]) > len(path) and item["loc"][-1] == _KEY_MARK:
        message = f"this key: {message}"
    return FieldProblem(pointer=pointer(path), message=message)


def _locate(
    model: type[BaseModel], loc: Sequence[str | int]
) -> tuple[list[str | int], type[BaseModel] | None]:
    """The path in the body of a place in the models, and the model around its last part.

    Pydantic puts the tag of the chosen member into the place of an error below a union
    (`space.darts.channels`) and marks keys (`labels.my key.[key]`); the body has neither.
    """
    path: list[str | int] = []
    around: type[BaseModel] | None = None
    inside: type[BaseModel] | None = model
    below_key: type[BaseModel] | None = None
    members: Mapping[str, type[BaseModel] | None] = {}
    for part in loc:
        if members:
            inside, members = members.get(str(part)), {}
            continue
        if part == _KEY_MARK and len(path) > 1:
            break
        path.append(part)
        if below_key is not None:
            inside, below_key = below_key, None
            continue
        around = inside
        field = None if around is None else around.model_fields.get(str(part))
        if field is not None:
            members = _members(field) if field.discriminator is not None else _tagged(field)
        inside = _only_model(field)
        below_key = _model_of_values(field)
    return path, around


def _members(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The models of a union by the value of its discriminator."""
    return {
        value: member
        for member in get_args(field.annotation)
        for value in get_args(member.model_fields[str(field.discriminator)].annotation)
    }


def _tagged(field: FieldInfo) -> dict[str, type[BaseModel] | None]:
    """The members of a union that is told apart by a function, by their tags; None: no model."""
    members: dict[str, type[BaseModel] | None] = {}
    for member in get_args(field.annotation):
        kind, *notes = get_args(member) or (member,)
        tags = [note.tag for note in notes if isinstance(note, Tag)]
        is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
        members |= dict.fromkeys(tags, kind if is_model else None)
    return members


def _only_model(field: FieldInfo | None) -> type[BaseModel] | None:
    annotation: Any = None if field is None else field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _model_of_values(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model of an object's values, where the object may have any keys."""
    if field is None or get_origin(field.annotation) is not dict:
        return None
    _, value = get_args(field.annotation)
    return value if isinstance(value, type) and issubclass(value, BaseModel) else None


def _message(item: ErrorDetails, path: Sequence[str | int], around: type[BaseModel] | None) -> str:
    if item["type"] == "extra_forbidden" and around is not None:
        return _unknown_field(str(path[-1]), around)
    if item["type"] == "missing":
        last = path[-1]
        return f"item {last} is missing" if isinstance(last, int) else f"{last} is required"
    if item["type"] in ("union_tag_not_found", "union_tag_invalid") and around is not None:
        choices = list(_members(around.model_fields[str(item["loc"][-1])]))
        tag = str(path[-1])
        given = item["input"].get(tag) if isinstance(item["input"], Mapping) else None
        if given is None:
            return f"{tag} is required; choose from: {', '.join(choices)}"
        return f"unknown {tag} {shown(given)}{choose(given, choices)}"
    return sentence(item)


def _unknown_field(name: str, around: type[BaseModel]) -> str:
    known = list(around.model_fields)
    close = difflib.get_close_matches(name[:100], known, n=1)
    if close:
        return f"unknown field {shown(name)}; did you mean {close[0]!r}?"
    return f"unknown field {shown(name)}; known here are: {', '.join(known)}"
