"""Runners that get ready, and the processes that wait for their trials."""

import logging
import signal
import subprocess
import sys

import pytest

from workers import ray_prestart, ray_trials
from workers.settings import WorkerSettings
from workers.warming import ENVIRONMENT, warm_up


def test_a_ray_that_starts_no_processes_ahead_is_a_warning(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start_processes() -> None:
        raise AttributeError("PrestartWorkers")

    joined: list[str] = []
    monkeypatch.setattr(ray_trials, "connect", joined.append)
    monkeypatch.setattr(ray_prestart, "start_processes", start_processes)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of nobody" * 8)
    on_ray = settings.model_copy(update={"executor": "ray", "ray_address": "127.0.0.1:1"})
    with caplog.at_level(logging.WARNING):
        warm_up(on_ray)
    assert joined == ["127.0.0.1:1"]
    assert "no processes are ready for trials: PrestartWorkers" in caplog.text


_LOADING = """
import importlib, sys, torch

def looked(*_):
    sys.exit("it looks for a GPU")

torch._C._cuda_getDeviceCount = looked
torch._C._cuda_init = looked
torch.cuda.is_available = looked
torch.cuda.device_count = looked
for name in sys.argv[1].split(","):
    importlib.import_module(name)
"""


def test_what_is_loaded_ahead_does_not_look_for_a_gpu() -> None:
    """Ray says which one is a trial's when it starts; who has looked before sees all of them."""
    modules = ENVIRONMENT["RAY_preload_python_modules"]
    loading = subprocess.run(
        [sys.executable, "-c", _LOADING, modules], capture_output=True, text=True, check=False
    )
    assert loading.returncode == 0, loading.stderr
