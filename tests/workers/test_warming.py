"""Runners that get ready, and the processes that wait for their trials."""

import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def node(number: int, cpus: float, *, is_alive: bool = True) -> dict[str, Any]:
    return {
        "NodeManagerAddress": f"10.0.0.{number}",
        "NodeManagerPort": 7,
        "Alive": is_alive,
        "Resources": {"CPU": cpus} if cpus else {"memory": 1.0},
    }


def test_two_wait_on_every_node_that_has_as_many_cpus() -> None:
    nodes = [node(1, 8), node(2, 1), node(3, 0), node(4, 8, is_alive=False), node(5, 0.5)]
    assert ray_prestart._places(nodes) == {"10.0.0.1:7": 2, "10.0.0.2:7": 1}


@pytest.mark.parametrize(("num_nodes", "wanted"), [(8, {2}), (10, {1, 2}), (40, {1})])
def test_on_many_nodes_there_are_no_more_than_sixteen(num_nodes: int, wanted: set[int]) -> None:
    places = ray_prestart._places([node(number, 4) for number in range(num_nodes)])
    assert sum(places.values()) == 16
    assert set(places.values()) == wanted


@pytest.mark.parametrize(
    ("file", "line"), [("docker-compose.yml", "{}: {}\n"), ("docs/operations.md", " {}={}")]
)
def test_nodes_are_started_so_wherever_it_is_written(file: str, line: str) -> None:
    text = (Path(__file__).parents[2] / file).read_text().replace('"', "")
    for name, value in ENVIRONMENT.items():
        assert line.format(name, value) in text


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
