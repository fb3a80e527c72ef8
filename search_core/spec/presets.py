"""Settings worth starting from, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Preset:
    """A named, partial spec.

    Attributes:
        summary: One sentence for a list of presets.
        spec: The fields that it sets, as in a request body.
    """

    summary: str
    spec: Mapping[str, Any]


PRESETS: Final[dict[str, Preset]] = {
    # Tuned so that a trial takes a minute on one core and the alphas, which get 88 steps only,
    # still choose: their learning rate is far above the papers'.
    "digits-quick": Preset(
        summary="A DARTS search on the bundled digits that takes about a minute on two CPU cores",
        spec={
            "space": {"kind": "darts", "channels": 4, "cells": 4, "nodes": 3},
            "dataset": {"name": "digits"},
            "algorithm": {"architecture_learning_rate": 0.05},
            "training": {"epochs": 8, "batch_size": 64, "learning_rate": 0.1},
            "trials": {"seeds": [0, 1]},
        },
    ),
}


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one nested mapping over another; where `kind` changes, the whole object is replaced.

    Args:
        base: The values to start from.
        override: The values that win.

    Returns:
        A new mapping; neither argument is changed.
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        same_kind = (
            isinstance(below, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", below.get("kind")) == below.get("kind")
        )
        merged[key] = merge(below, value) if same_kind else value  # type: ignore[arg-type]
    return merged
