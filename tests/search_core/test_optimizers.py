"""Our optimizers are PyTorch's, without its compiler."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

import search_core
from search_core import optimizers

ROOT = Path(search_core.__file__).parents[1]

Make = Callable[..., optim.Optimizer]

SETTINGS: list[tuple[Make, Make, dict[str, Any]]] = [
    (optimizers.SGD, optim.SGD, {"momentum": 0.9, "weight_decay": 3e-4}),
    (optimizers.Adam, optim.Adam, {"betas": (0.5, 0.999), "weight_decay": 1e-3}),
]


def steps(optimizer: optim.Optimizer, weight: nn.Parameter, num: int) -> None:
    for _ in range(num):
        optimizer.zero_grad()
        torch.autograd.backward(weight.square().sum())
        optimizer.step()


@pytest.mark.parametrize(("ours", "theirs", "settings"), SETTINGS, ids=["sgd", "adam"])
def test_steps_and_states_are_pytorchs(ours: Make, theirs: Make, settings: dict[str, Any]) -> None:
    start = torch.linspace(-1, 2, 7)
    results = []
    for first, second in ((ours, theirs), (theirs, ours), (ours, ours), (theirs, theirs)):
        weight = nn.Parameter(start.clone())
        before = first([weight], lr=0.1, **settings)
        steps(before, weight, 3)
        after = second([weight], lr=0.5, **settings)
        after.load_state_dict(before.state_dict())
        steps(after, weight, 3)
        assert weight.requires_grad
        results.append(weight.detach())
    assert all(torch.equal(result, results[0]) for result in results)
    assert not torch.equal(results[0], start)


def test_a_step_records_no_gradient_and_calls_hooks() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = optimizers.SGD([weight], lr=0.1)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(torch.is_grad_enabled()))
    steps(optimizer, weight, 2)
    assert len(called) == 2
    assert weight.grad_fn is None
    assert torch.is_grad_enabled()


def test_a_search_and_a_training_load_neither_the_compiler_nor_torchvision() -> None:
    code = """
import sys
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingRun

space = {"kind": "darts", "channels": 2, "cells": 3, "nodes": 1}
training = {"epochs": 1, "batch_size": 256}
run = SearchRun(SearchSpec.model_validate({"space": space, "training": training}), 0)
run.run_epoch()
training = RetrainingSpec.model_validate({
    "architecture": run.genotype().model_dump(mode="json"),
    "network": {"channels": 2, "cells": 3, "auxiliary_weight": 0.0},
    "training": training,
}, strict=False)
TrainingRun(training, 0).run_epoch()
loaded = [name for name in ("torch._dynamo", "sympy", "torchvision") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
