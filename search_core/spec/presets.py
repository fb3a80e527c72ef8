"""Settings worth starting from, by name: of searches, and of trainings from scratch.

Sources: arXiv 1806.09055, appendix A; arXiv 1903.09900, section 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from search_core.spec.base import field_error

PresetKind = Literal["search", "training"]


@dataclass(frozen=True)
class Preset:
    """A named, partial spec.

    Attributes:
        summary: One sentence for a list of presets.
        spec: The fields that it sets, as in a request body.
        kind: What starts from it: a `SearchSpec`, or a `RetrainingSpec`, whose architecture is
            then still to be named.
    """

    summary: str
    spec: Mapping[str, Any]
    kind: PresetKind = "search"


_DARTS_AUGMENTATION: Final = {"crop_padding": 4, "horizontal_flip": True}
_SHARP_DARTS_AUGMENTATION: Final = {
    **_DARTS_AUGMENTATION,
    "auto_augment": "cifar10",
    "cutout": 16,
}
_CIFAR10_SEARCH: Final = {
    "dataset": {"name": "cifar10"},
    "augmentation": _DARTS_AUGMENTATION,
    "training": {
        "epochs": 50,
        "batch_size": 64,
        "learning_rate": 0.025,
        "schedule": {"kind": "cosine", "min_learning_rate": 1e-3},
    },
    "resources": {"gpus": 1},
}
_SHARP_DARTS_TRAINING: Final = {
    "epochs": 120,
    "learning_rate": 0.025,
    "schedule": {
        "kind": "cosine_power",
        "power": 2.0,
        "warmup_epochs": 5,
        "min_learning_rate": 1e-4,
    },
}
_CIFAR10_SIZE: Final = {"channels": 16, "cells": 8, "nodes": 4}

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
    # Tuned likewise. With the weights' learning rate of `digits-quick` the training loss is gone
    # before the alphas have chosen; with this one an operation comes to eight times its even share.
    "hypercuboid-digits-quick": Preset(
        summary="A small HyperCuboid on the bundled digits: one to two minutes on two CPU cores",
        spec={
            "space": {
                "kind": "hypercuboid",
                "axes": {
                    "channels": [8, 16],
                    "operation": ["sharp_sep_conv", "resizable_pool"],
                    "kernel_size": [3, 5],
                },
                "levels": 2,
                "final_channels": 64,
            },
            "dataset": {"name": "digits"},
            "algorithm": {"weighting": "max_w", "architecture_learning_rate": 0.1},
            "training": {"epochs": 12, "batch_size": 64, "learning_rate": 0.05},
            "trials": {"seeds": [0, 1]},
        },
    ),
    "darts-cifar10": Preset(
        summary="DARTS on CIFAR-10 as published, first order",
        spec={
            "space": {"kind": "darts", **_CIFAR10_SIZE},
            "algorithm": {"order": "first"},
            **_CIFAR10_SEARCH,
        },
    ),
    "darts-cifar10-second-order": Preset(
        summary="DARTS on CIFAR-10 as published, second order: several times as slow as the first",
        spec={
            "space": {"kind": "darts", **_CIFAR10_SIZE},
            "algorithm": {"order": "second"},
            **_CIFAR10_SEARCH,
        },
    ),
    "sharpdarts-cifar10": Preset(
        summary="sharpDARTS on CIFAR-10: SharpSepConv primitives, cosine power annealing",
        spec={
            **_CIFAR10_SEARCH,
            "space": {"kind": "sharp_darts", **_CIFAR10_SIZE},
            "augmentation": _SHARP_DARTS_AUGMENTATION,
            "training": {**_SHARP_DARTS_TRAINING, "batch_size": 48},
        },
    ),
    "hypercuboid-cifar10": Preset(
        summary="The sharpDARTS paper's HyperCuboid on CIFAR-10, with Max-W regularization",
        spec={
            **_CIFAR10_SEARCH,
            "space": {
                "kind": "hypercuboid",
                "axes": {
                    "channels": [32, 64, 128, 256],
                    "operation": ["sharp_sep_conv", "resizable_pool"],
                },
                "levels": 4,
            },
            "augmentation": _SHARP_DARTS_AUGMENTATION,
            "algorithm": {"weighting": "max_w"},
            "training": {**_SHARP_DARTS_TRAINING, "batch_size": 64},
        },
    ),
}
"""What a search can start from."""

TRAINING_PRESETS: Final[dict[str, Preset]] = {
    "retrain-digits": Preset(
        kind="training",
        summary="A small network on the bundled digits: about half a minute on a CPU core",
        spec={
            "network": {"kind": "cell", "channels": 8, "cells": 4, "drop_path": 0.1},
            "dataset": {"name": "digits"},
            "validation_portion": 0.1,
            "training": {
                "epochs": 20,
                "batch_size": 64,
                "learning_rate": 0.1,
                "schedule": {"kind": "cosine_power", "power": 2.0, "min_learning_rate": 1e-4},
            },
        },
    ),
    "retrain-cifar10": Preset(
        kind="training",
        summary="CIFAR-10 as in the sharpDARTS paper, on all training images; CIFAR-10.1 besides",
        spec={
            "network": {
                "kind": "cell",
                "form": "cifar",
                "channels": 36,
                "cells": 20,
                "auxiliary_weight": 0.4,
                "drop_path": 0.2,
            },
            "dataset": {"name": "cifar10"},
            "augmentation": _SHARP_DARTS_AUGMENTATION,
            "validation_portion": 0.0,
            "training": {
                "epochs": 2000,
                "batch_size": 64,
                "learning_rate": 0.025,
                "weight_decay": 3e-4,
                "gradient_clip": 5.0,
                "schedule": {
                    "kind": "cosine_power",
                    "power": 2.0,
                    "warmup_epochs": 5,
                    "min_learning_rate": 1e-8,
                },
            },
            "extra_tests": ["cifar10_1"],
            "resources": {"gpus": 1},
        },
    ),
    "retrain-imagenet": Preset(
        kind="training",
        summary="ImageNet as in the sharpDARTS paper, on all training images",
        spec={
            "network": {"kind": "cell", "form": "imagenet", "channels": 48, "cells": 14},
            "dataset": {"name": "imagenet"},
            "augmentation": {"resized_crop": True, "horizontal_flip": True},
            "validation_portion": 0.0,
            "training": {
                "epochs": 300,
                "weight_decay": 1e-4,
                "schedule": {"kind": "cosine_power", "power": 10.0, "warmup_epochs": 10},
            },
            "resources": {"cpus": 8, "gpus": 1},
        },
    ),
}
"""What a training from scratch can start from."""


def apply(values: Any, kind: PresetKind) -> Any:
    """Lays a request body over the preset that it names, if it names one.

    Args:
        values: What a spec's validator is given.
        kind: What the spec describes.

    Returns:
        The body with the preset's fields where it has none of its own.

    Raises:
        PydanticCustomError: There is no such preset, or it is of the other kind.
    """
    if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
        return values
    name = values["preset"]
    own, other = (PRESETS, TRAINING_PRESETS) if kind == "search" else (TRAINING_PRESETS, PRESETS)
    if name in other:
        raise field_error(
            f"preset {name!r} is for a {other[name].kind}, and this is a {kind}; "
            f"choose from: {', '.join(own)}",
            "preset",
        )
    if name not in own:
        raise field_error(f"unknown preset {name!r}; choose from: {', '.join(own)}", "preset")
    return merge(own[name].spec, values)


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one nested mapping over another.

    Where an object becomes one of another kind (another `kind`, a data set of another `name`), it
    is replaced whole: the fields of one kind mean nothing in another.

    Args:
        base: The values to start from.
        override: The values that win.

    Returns:
        A new mapping; neither argument is changed.
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            tag = "name" if key == "dataset" else "kind"
            if value.get(tag, below.get(tag)) == below.get(tag):
                value = merge(below, value)
        merged[key] = value
    return merged
