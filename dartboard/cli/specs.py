"""From a spec file and options to the body of a submission."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import typer

_NEARLY_JSON: Final = frozenset({"true", "false", "null", "none", "nan", "inf", "infinity"})


@dataclass(frozen=True)
class SpecFiles:
    """The specs in some files.

    Attributes:
        specs: JSON objects, in order.
        places: Where each of them stands, for people.
        is_one: Whether it is a single file with a single object, and no list of specs.
    """

    specs: list[dict[str, Any]]
    places: list[str]
    is_one: bool


def read_spec(source: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input when the source is `-`.

    Raises:
        typer.BadParameter: There is no such file, or it holds no JSON object.
    """
    name, text = _read(source)
    return _object(_one_document(name, text), name)


def read_specs(sources: Sequence[str]) -> SpecFiles:
    """The specs in files, or on standard input for `-`.

    A file holds one JSON object, an array of them, or one on each of its lines (JSONL).

    Raises:
        typer.BadParameter: There is no such file, or it holds something else.
    """
    specs: list[dict[str, Any]] = []
    places: list[str] = []
    is_one = len(sources) == 1
    for source in sources:
        name, text = _read(source)
        documents = _documents(name, text)
        if documents is None:
            specs.append(_object(_one_document(name, text), name))
            places.append(name)
            continue
        is_one = False
        for number, document in enumerate(documents, start=1):
            place = f"spec {number} of {name}"
            specs.append(_object(document, place))
            places.append(place)
    return SpecFiles(specs, places, is_one)


def _read(source: str) -> tuple[str, str]:
    """The name of a file for people, and what is in it."""
    name = "standard input" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{name} cannot be read: it is not text in UTF-8") from None
    text = text.removeprefix("\ufeff")  # which some editors put before what is in UTF-8
    if not text.strip():
        raise typer.BadParameter(
            f'{name} is empty: the smallest spec is {{"preset": "digits-quick"}}'
        )
    return name, text


def _one_document(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{name} is not JSON: {error}") from None


def _documents(name: str, text: str) -> list[Any] | None:
    """What is in a file of several specs; None of a file that holds one, or is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        lines = [line for line in text.splitlines() if line.strip()]
        # One object that is written over several lines has lines that begin otherwise.
        if len(lines) == 1 or not all(line.lstrip().startswith("{") for line in lines):
            return None
        return [_one_document(f"line {n} of {name}", line) for n, line in enumerate(lines, 1)]
    if isinstance(document, list) and document:
        return document
    return None


def _object(spec: Any, name: str) -> dict[str, Any]:
    if not isinstance(spec, dict):
        raise typer.BadParameter(f"{name} holds no JSON object: a spec is written in braces")
    return spec


def apply_settings(
    spec: dict[str, Any],
    settings: Sequence[str],
    kind: Literal["search", "training"] = "search",
) -> None:
    """Sets fields of a spec, each written as `path.to.field=JSON`.

    Args:
        spec: Changed in place.
        settings: A string that begins with a letter needs no quotes: `space.kind=darts`.
        kind: What the spec describes.

    Raises:
        typer.BadParameter: A setting is not of this form, or leads through something that is no
            object.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = _names(path)
        if not equals or not all(names):
            raise typer.BadParameter(
                f"--set {setting}: write it like --set training.epochs=20", param_hint="--set"
            )
        value = _json_or_word(path, text)
        place: Any = spec
        for number, name in enumerate(names[:-1], start=1):
            place = place.setdefault(name, {})
            if not isinstance(place, dict) or not _can_have_fields(names[:number], kind):
                raise typer.BadParameter(
                    f"--set {setting}: {'.'.join(names[:number])} is not an object, it has no "
                    f"field {names[number]!r}; set it as a whole",
                    param_hint="--set",
                )
        place[names[-1]] = value


def _names(path: str) -> list[str]:
    """The keys on a path; below `trials.grid` and `trials.sample` a key is a path itself."""
    for above in ("trials.grid.", "trials.sample."):
        if path.startswith(above):
            return [*above.rstrip(".").split("."), path.removeprefix(above)]
    return path.split(".")


def _can_have_fields(path: Sequence[str], kind: Literal["search", "training"]) -> bool:
    """Whether a place in a spec is, or may be, an object. A place that is unknown may be."""
    # Not at import: `dartboard --help` needs neither.
    from pydantic import BaseModel

    from search_core.spec import SearchSpec
    from search_core.spec.retraining import RetrainingSpec

    models: list[type[BaseModel]] = [SearchSpec if kind == "search" else RetrainingSpec]
    for name in path:
        annotations = [
            model.model_fields[name].annotation for model in models if name in model.model_fields
        ]
        kinds = [kind for annotation in annotations for kind in _alternatives(annotation)]
        if not kinds or any(get_origin(kind) is dict for kind in kinds):
            return True
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return False
    return True


def parse_labels(labels: Sequence[str]) -> dict[str, str]:
    """Labels written as `key=value`.

    Raises:
        typer.BadParameter: One is not of this form.
    """
    parsed = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not (key and equals and value):
            raise typer.BadParameter(
                f"--label {label}: write it like --label team=vision", param_hint="--label"
            )
        parsed[key] = value
    return parsed


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a value may have, without the unions around them."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    return [annotation]


def _json_or_word(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if _is_word(text):
            return text
    quoted = json.dumps(text, ensure_ascii=False)
    raise typer.BadParameter(
        f"--set {path}={text}: {text or 'nothing'} is not JSON; a string that does not begin with "
        f"a letter is written in double quotes, as in --set '{path}={quoted}'",
        param_hint="--set",
    )


def _is_word(text: str) -> bool:
    """Whether a text is meant as a string, and not as a number, a list or the like."""
    if text.lower() in _NEARLY_JSON:
        return False
    return text[:1].isalpha() or text.startswith(("/", "_", "./", "../"))
