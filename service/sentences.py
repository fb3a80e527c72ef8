"""Pydantic's errors as sentences for who sent the value: they name it, and what would be right."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_LONGEST_SHOWN: Final = 60

_OBJECT = "is not an object: an object is written in braces, {...}"
_LIST = "is not a list: a list is written in brackets, [...]"
_INTEGER = "is not an integer: write one without quotes, a point or an exponent"
_TIME = "is not a time with its zone: write it like 2026-01-31T12:00:00Z"

_WRONG_TYPES: Final[Mapping[str, str]] = {
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "int_type": _INTEGER,
    "int_from_float": _INTEGER,
    "int_parsing": "is not an integer",
    "int_parsing_size": "is too large for an integer",
    "float_type": "is not a number: write one without quotes",
    "finite_number": "is too large",
    "bool_type": "is neither true nor false; write one of them, without quotes",
    "bool_parsing": "is neither true nor false",
    "string_type": "is not text: text is written in double quotes",
    "uuid_parsing": "is not an id: ids look like 01900000-0000-7000-8000-000000000000",
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
}

_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "is too small: it must be at least"),
    "greater_than": ("gt", "is too small: it must be above"),
    "less_than_equal": ("le", "is too large: it must be at most"),
    "less_than": ("lt", "is too large: it must be below"),
}

_LENGTHS: Final[Mapping[str, tuple[str, str, str]]] = {
    "too_short": ("min_length", "at least", "item"),
    "too_long": ("max_length", "at most", "item"),
    "string_too_short": ("min_length", "at least", "character"),
    "string_too_long": ("max_length", "at most", "character"),
}

_PATTERNS: Final[Mapping[str, str]] = {
    "^[0-9a-f]{64}$": "is not a full hash, which has 64 of the digits 0-9 and a-f",
}


def sentence(item: Mapping[str, Any]) -> str:
    """What is wrong with a value, without a point at the end.

    Args:
        item: An error of pydantic's, with its input.
    """
    kind, value, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind in _WRONG_TYPES:
        return f"{shown(value)} {_WRONG_TYPES[kind]}"
    if kind in _BOUNDS:
        name, wrong = _BOUNDS[kind]
        return f"{shown(value)} {wrong} {_number(context[name])}"
    if kind in _LENGTHS:
        name, bound, unit = _LENGTHS[kind]
        return _length(value, context[name], bound, unit)
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", context["expected"])
        return f"{shown(value)} is none of the choices{choose(value, choices)}"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        wrong = f"has a character that is not allowed here; the pattern is {pattern}"
        return f"{shown(value)} {_PATTERNS.get(pattern, wrong)}"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def choose(value: object, choices: Sequence[str]) -> str:
    """How a sentence about a wrong choice goes on: the one that was meant, and all of them."""
    close = difflib.get_close_matches(str(value)[:_LONGEST_SHOWN], choices, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{meant} {'Choose' if close else 'choose'} from: {', '.join(choices)}"


def shown(value: object) -> str:
    """A value of JSON as a sentence names it; the start of it when it is long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return "this number"
    if isinstance(value, str):
        return repr(_cut(value))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _length(value: object, limit: int, bound: str, unit: str) -> str:
    right = f"it must have {bound} {limit} {unit}{'s' * (limit != 1)}"
    if not isinstance(value, Mapping | list | tuple | str):
        return right
    if not value:
        return f"it is empty: {right}"
    return f"it has {len(value)} {unit}{'s' * (len(value) != 1)}: {right}"
