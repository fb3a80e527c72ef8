"""The parameters of a trial as people read them."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

_LONGEST: Final = 24


def point_text(parameters: Mapping[str, Any] | None) -> str:
    """`learning_rate=0.1, cutout=4`; empty where nothing varies.

    Args:
        parameters: Values by dotted path; None while they are not drawn.
    """
    if parameters is None:
        return "not drawn yet"
    names = Counter(path.rpartition(".")[2] for path in parameters)
    return ", ".join(
        f"{path if names[name] > 1 else name}={value_text(value)}"
        for path, name, value in (
            (path, path.rpartition(".")[2], value) for path, value in parameters.items()
        )
    )


def trial_text(number: int, seed: int, parameters: Mapping[str, Any] | None) -> str:
    """`3 (seed 0, learning_rate=0.1)`: a trial by its number, and what makes it differ."""
    point = point_text(parameters)
    return f"{number} (seed {seed}{', ' if point else ''}{point})"


def value_text(value: Any) -> str:
    """A value, in at most four digits if it is no whole number."""
    if isinstance(value, str):
        return value
    text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
