"""Small things to search: a spec whose trial takes a second, and batches of random images."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from search_core import relaxation_in_use, search, static_training
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.spec import SearchSpec
from search_core.spec.algorithm import RelaxationForm
from search_core.spec.presets import merge

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SpecMaker = Callable[..., SearchSpec]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """The networks here are too small for more threads to help."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def make_spec() -> SpecMaker:
    """Makes a spec of three batches an epoch, with the given sections laid over it."""

    def make(**sections: Any) -> SearchSpec:
        base = {
            "space": {"kind": "darts", "channels": 2, "cells": 3, "nodes": 1},
            "algorithm": {"architecture_learning_rate": 0.1},
            "training": {"epochs": 2, "batch_size": 200, "learning_rate": 0.1},
        }
        return SearchSpec.model_validate(merge(base, sections))

    return make


@pytest.fixture
def make_batch() -> Callable[..., LabelledImages]:
    """Makes a batch of normally distributed images with random labels of ten classes."""

    def make(
        num_images: int, *, seed: int, size: int = 8, dtype: torch.dtype = torch.float32
    ) -> LabelledImages:
        generator = torch.Generator().manual_seed(seed)
        return LabelledImages(
            torch.randn((num_images, 1, size, size), generator=generator, dtype=dtype),
            torch.randint(10, (num_images,), generator=generator),
        )

    return make


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU's kernels. Without one Python runs their programs: fewer ones, of more threads."""
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        depthwise = import_module("search_core.relaxation.fused.depthwise")
        monkeypatch.setattr(depthwise, "_NUM_WARPS", 32)
        monkeypatch.setattr(depthwise, "_NUM_WARPS_OF_WEIGHTS", 32)
    # A GPU's convolutions are otherwise less exact than what they are compared with.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return import_module("search_core.relaxation.fused")


@pytest.fixture
def _static_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a GPU's searches on a CPU, where the same work is simply done again."""
    original = static_training.is_static
    gpu = torch.device("cuda")

    def is_static(spec: SearchSpec, device: torch.device, relaxation: RelaxationForm) -> bool:
        del device, relaxation
        wanted = relaxation_in_use._is_wanted(spec.algorithm, gpu)
        return original(spec, gpu, "fast" if wanted else "plain")

    monkeypatch.setattr(search, "is_static", is_static)

    def step(*args: Any, **options: Any) -> BilevelStep:
        # The kernels of a GPU's optimizers round otherwise.
        return BilevelStep(*args, **{**options, "capturable": False})

    monkeypatch.setattr(search, "BilevelStep", step)
