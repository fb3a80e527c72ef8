"""What benchmarks of search steps have in common: the networks, and how steps are measured."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import psutil
import torch

from search_core import weighting
from search_core.pace import peak_memory
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec
from search_core.supernet import Supernet

_Result = TypeVar("_Result")

SPACES: Final[dict[str, dict[str, Any]]] = {
    "darts": {"kind": "darts"},
    "sharp_darts": {"kind": "sharp_darts"},
    "sharper_darts": {"kind": "sharper_darts"},
    "hypercuboid": {
        "kind": "hypercuboid",
        "axes": {
            "channels": [32, 64, 128, 256],
            "operation": ["sharp_sep_conv", "resizable_pool"],
        },
        "levels": 4,
        "strides": [1, 2],
        "final_channels": 512,
    },
}
"""The published configurations, by what the command line calls them."""


def space_of(options: argparse.Namespace) -> dict[str, Any]:
    """The space that a command line asks for.

    Args:
        options: `space`, and of the cell spaces `channels`, `cells`, `nodes` and, if there is such
            an option, `primitives`.
    """
    space = dict(SPACES[options.space])
    if space["kind"] != "hypercuboid":
        space |= {"channels": options.channels, "cells": options.cells, "nodes": options.nodes}
        if getattr(options, "primitives", None):
            space["primitives"] = options.primitives
    return space


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Adds what a network is built from.

    Args:
        parser: The command line's.
    """
    parser.add_argument("--space", choices=list(SPACES), default="darts")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--channels", type=int, default=16, help="of the cell spaces")
    parser.add_argument("--cells", type=int, default=8, help="of the cell spaces")
    parser.add_argument("--nodes", type=int, default=4, help="of the cell spaces")


def network_of(options: argparse.Namespace) -> Supernet:
    """The network that a command line asks for, on the CPU, for images of three channels.

    Args:
        options: As `add_network_options` has it.
    """
    spec = SearchSpec.model_validate({"space": space_of(options), "dataset": {"name": "synthetic"}})
    return build_supernet(
        spec.space,
        (3, options.size, options.size),
        10,
        weighting=weighting.from_spec(spec.algorithm),
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )


def in_turn(
    steppers: Mapping[str, Callable[[], _Result]], repeats: int
) -> dict[str, list[_Result]]:
    """Makes steps of several forms in turn.

    Args:
        steppers: Make a step each, and say what it took; they are warm.
        repeats: Steps of each that count.

    Returns:
        What they said.
    """
    found: dict[str, list[_Result]] = {form: [] for form in steppers}
    for _ in range(repeats):
        for form, stepper in steppers.items():
            found[form].append(stepper())
    return found


def peak_mib(stepper: Callable[[], object], device: str) -> float:
    """The most memory that a step takes, in a process that has made none yet.

    Args:
        stepper: Makes the step.
        device: Where its tensors are.

    Returns:
        MiB, less those that were taken before.
    """
    place = torch.device(device)
    if place.type == "cuda":
        before = torch.cuda.memory_allocated(place)
    else:
        before = psutil.Process().memory_info().rss
    stepper()
    return (peak_memory(place) - before) / 2**20


def machine(device: str) -> dict[str, str]:
    """What a figure depends on.

    Args:
        device: Where it was measured.
    """
    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    return {"torch": torch.__version__, "machine": name}
