"""What all of a GPU's kernels have in common, and when they are chosen."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from search_core.relaxation import arithmetic
from search_core.relaxation.stacks import whole
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import Kernels, Known, Normalisation, Slide
from tests.search_core.fused_checks import DEVICE, EXACT, draw


def test_what_is_no_number_is_not_rectified(fused: Any) -> None:
    known = Known(*torch.full((2, 1, 2), torch.nan, dtype=EXACT, device=DEVICE))
    x_nkchw = draw(2, 1, 2, 3, 3).detach()
    with torch.no_grad():
        result = fused.normalise_by(known, Normalisation(x_nkchw, None, None, 1e-5, rectify=True))
    assert result.isnan().all()
    _, rectified_nchw, _ = fused.read(torch.nan * x_nkchw[:, 0], rectify=True)
    assert rectified_nchw.isnan().all()


def test_lower_precision_is_summed_in_single(fused: Any) -> None:
    x_nkchw = draw(4, 2, 16, 8, 8, dtype=torch.bfloat16)
    exact = x_nkchw.detach().float()
    _, measured_2kc = fused.normalise(x_nkchw, None, None, eps=1e-5)
    assert measured_2kc.dtype == torch.float32
    _, expected_2kc = TorchArithmetic().normalise(exact, None, None, eps=1e-5)
    torch.testing.assert_close(measured_2kc, expected_2kc, rtol=1e-4, atol=1e-5)
    taps = draw(32, 1, 5, 5, name="w", dtype=torch.float32)
    weight_koi = draw(2, 16, 16, name="p", dtype=torch.float32)
    slides = [Slide(whole(exact), Kernels(taps, 1, 2))]
    expected = TorchArithmetic().convolve(slides, weight_koi)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        ours = fused.convolve(slides, weight_koi)
        product = fused.multiply(exact, weight_koi)
    assert ours.dtype == product.dtype == torch.bfloat16
    if DEVICE.type == "cpu":
        # Triton's interpreter multiplies bfloat16 matrices as if they were integers.
        factors = torch.eye(16).expand(2, 16, 16)
        expected = TorchArithmetic().convolve(slides, factors)
        ours = torch.empty(4, 32, 8, 8, dtype=torch.bfloat16)
        depthwise = import_module("search_core.relaxation.fused.depthwise")
        depthwise.convolve(exact.bfloat16().flatten(1, 2), slides[0].kernels, ours)
        ours = ours.view_as(expected)
    assert float((ours - expected).detach().norm()) < 8e-3 * float(expected.detach().norm())


def test_there_is_no_second_derivative(fused: Any) -> None:
    x_nkchw, weight_koi = draw(2, 1, 4, 6, 6), draw(1, 4, 4, name="p")
    slide = Slide(whole(x_nkchw), Kernels(draw(4, 1, 3, 3, name="w"), 1, 1))
    for y in (
        fused.convolve([slide], weight_koi),
        fused.multiply(x_nkchw, weight_koi),
        fused.normalise(x_nkchw, None, None, eps=1e-5)[0],
        fused.mix([whole(x_nkchw)], weight_koi[0, :1, :1]),
        fused.read(x_nkchw[:, 0], rectify=True)[1],
    ):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(y.square().sum(), x_nkchw, create_graph=True)


def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Python interprets more than Triton compiles."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    program = Path(__file__).with_name("compile_kernels.py")
    run = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "_product_of_weight 90 bf16" in run.stdout


def test_each_device_has_its_arithmetic() -> None:
    assert isinstance(arithmetic.arithmetic_for(torch.zeros(1)), TorchArithmetic)


def test_without_a_c_compiler_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert not arithmetic.has_compiler.__wrapped__()
    monkeypatch.setenv("CC", "some-compiler")
    assert arithmetic.has_compiler.__wrapped__()
