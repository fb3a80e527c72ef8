"""Compiling what a network will launch on a GPU, before it does."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from search_core import kernels_ahead
from search_core.data import LabelledImages
from search_core.kernels_ahead import compile_ahead
from search_core.supernet import Supernet

_IMAGES = LabelledImages(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("form", [["float32"], ["bfloat16", "jointly"]], ids=" ".join)
def test_a_search_finds_all_of_its_kernels_compiled(form: list[str], tmp_path: Path) -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    program = Path(__file__).with_name("compile_small_network.py")
    run = subprocess.run(
        [sys.executable, program, *form],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ahead, again, training, none, unknown = run.stdout.splitlines()
    assert ahead == "ahead: 0 launched, 1 noted"
    assert again == "again: 0 passes"
    assert training.endswith("launched, 0 compiled")
    assert int(training.split()[1]) > 500
    assert none == "none: True"
    assert unknown == "unknown: False"


@pytest.mark.parametrize(("dtype", "calls"), [(torch.float32, 1), (torch.float64, 0)])
def test_on_a_cpu_there_are_kernels_for_single_precision(
    dtype: torch.dtype, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = mock.Mock(spec=Supernet)
    network.parameters.return_value = iter([torch.zeros(1, dtype=dtype)])
    of_cpu = mock.Mock()
    monkeypatch.setattr(kernels_ahead, "compile_for_cpu", of_cpu)
    compile_ahead(network, _IMAGES, batch_size=4, jointly=False)
    assert of_cpu.call_count == calls
    network.plan.assert_not_called()


@pytest.mark.parametrize("error", [OSError("no space"), AttributeError("another Triton")])
def test_what_cannot_be_compiled_ahead_stops_no_search(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = mock.Mock(spec=Supernet)
    network.parameters.return_value = iter([torch.zeros(1)])
    of_cpu = mock.Mock(side_effect=error)
    monkeypatch.setattr(kernels_ahead, "compile_for_cpu", of_cpu)
    compile_ahead(network, _IMAGES, batch_size=4, jointly=False)
    of_cpu.assert_called_once()
    assert str(error) in caplog.text
