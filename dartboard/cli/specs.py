"""From a spec file and options to the body of a submission."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer


def read_spec(source: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input when the source is `-`.

    Raises:
        typer.BadParameter: There is no such file, or it holds no JSON object.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{source} cannot be read: {error}") from None
    try:
        spec = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise typer.BadParameter(f"{source} holds no JSON object: a spec is written in braces")
    return spec


def apply_settings(spec: dict[str, Any], settings: Sequence[str]) -> None:
    """Sets fields of a spec, each written as `path.to.field=JSON`.

    Args:
        spec: Changed in place.
        settings: What is not JSON is taken as a string: `space.kind=darts`.

    Raises:
        typer.BadParameter: A setting is not of this form, or leads through something that is no
            object.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise typer.BadParameter(
                f"--set {setting}: write it like --set training.epochs=20", param_hint="--set"
            )
        place: Any = spec
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(
                    f"--set {setting}: {name} is no object; set it as a whole, in JSON",
                    param_hint="--set",
                )
        place[names[-1]] = _json_or_text(text)


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


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
