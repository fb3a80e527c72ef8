"""Compiles a small network's kernels ahead for a GPU that is not there, then asks for them again.

A program of its own, because in one process Triton either compiles or interprets.
"""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from search_core import kernels_ahead, relaxation_check, weighting
from search_core.data import LabelledImages
from search_core.evaluation import look_at
from search_core.kernels_ahead import compile_ahead
from search_core.randomness import stream
from search_core.relaxation import GroupedPlan, fused
from search_core.relaxation.fused import compiling
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec
from search_core.supernet import Supernet

_BATCH = 16


class Absent:
    """A GPU that counts what it is told to do, and does nothing."""

    def __init__(self) -> None:
        self.utils = self
        self.num_launched = 0

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 20}

    def load_binary(self, *_: object) -> tuple[int, int, int, int, int]:
        return 1, 1, 32, 0, 1024

    def launcher_cls(self, *_: object) -> Any:
        def launch(*_: object) -> None:
            self.num_launched += 1

        return launch


def small_network(precision: str) -> Supernet:
    space = {"kind": "darts", "channels": 4, "cells": 3, "nodes": 2}
    space |= {"primitives": ["none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"]}
    spec = SearchSpec.model_validate({"space": space, "dataset": {"name": "synthetic"}})
    network = build_supernet(
        spec.space,
        (3, 8, 8),
        10,
        weighting=weighting.from_spec(spec.algorithm),
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    network.precision = precision
    return network


def main() -> None:
    absent = Absent()
    driver.set_active(absent)
    missing: list[str] = []

    def listen(*, src: Any, cache_hit: bool, **_: object) -> None:
        if not cache_hit:
            missing.append(src.name)

    knobs.compilation.listener = listen
    images = LabelledImages(torch.zeros(_BATCH, 3, 8, 8), torch.zeros(_BATCH, dtype=torch.int64))
    patched = {
        f"search_core.{module}": mock.Mock(return_value=value)
        for module, value in (
            ("kernels_ahead.arithmetic_for", fused),
            ("relaxation.grouped.arithmetic_for", fused),
            ("relaxation.sharing.arithmetic_for", fused),
            ("relaxation.stages.arithmetic_for", fused),
            ("relaxation.adjacent.is_movable", True),
            ("supernet.planner_for", GroupedPlan),
        )
    }
    with ExitStack() as patches:
        for where, value in patched.items():
            patches.enter_context(mock.patch(where, value))
        precision, *more = sys.argv[1:]
        jointly = bool(more)
        network = small_network(precision)
        network.plan()
        prepare = partial(compile_ahead, network, images, batch_size=_BATCH, jointly=jointly)
        prepare()
        notes = list(Path(knobs.cache.dir).glob("dartboard-*[0-9a-f]"))
        sys.stdout.write(f"ahead: {absent.num_launched} launched, {len(notes)} noted\n")
        with mock.patch.object(kernels_ahead, "measure") as measure:
            prepare()
        sys.stdout.write(f"again: {measure.call_count} passes\n")
        train(network, images, jointly=jointly)
    sys.stdout.write(f"training: {absent.num_launched} launched, {len(missing)} compiled\n")
    unknown = compiling.Wanted(compiling.__name__, "unknown", "{}")
    sys.stdout.write(f"none: {compiling.compile_all([])}\n")
    sys.stdout.write(f"unknown: {compiling.compile_all([unknown])}\n")


def train(network: Supernet, images: LabelledImages, *, jointly: bool) -> None:
    """What a search computes, with sizes that are written down here once more."""
    for precision in ("float32", network.precision):
        few = images.take(torch.arange(4))
        relaxation_check.measure(network, few, precision, jointly=jointly, evaluates=True)
    for precision in {network.precision, "float32"} if jointly else {network.precision}:
        relaxation_check.measure(network, images, precision, jointly=jointly, evaluates=False)
    network.eval()
    with torch.no_grad():
        look_at(network, images.take(torch.arange(2 * _BATCH) % _BATCH))


if __name__ == "__main__":
    main()
