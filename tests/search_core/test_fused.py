"""The kernels of a GPU, interpreted where there is none, against PyTorch's operations."""

import copy
import math
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from search_core.randomness import stream
from search_core.relaxation import GroupedPlan, arithmetic, grouped, sharing
from search_core.relaxation.arithmetic import Kernels, Slide, TorchArithmetic
from tests.search_core.test_relaxation import (
    batch,
    buffers,
    distance,
    loss_and_gradients,
    spec_of,
    supernet,
)

triton = pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = torch.float64 if DEVICE.type == "cpu" else torch.float32
TOLERANCE = 1e-10 if DEVICE.type == "cpu" else 1e-5


@pytest.fixture(scope="module")
def depthwise() -> Any:
    return import_module("search_core.relaxation.fused.depthwise")


@pytest.fixture(scope="module")
def fused() -> Any:
    """The kernels. Without a GPU every program of one runs in Python."""
    from search_core.relaxation import fused

    return fused


@pytest.fixture(autouse=True)
def _single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's convolutions are otherwise less exact than what they are compared with."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def draw(*shape: int, name: str = "x", dtype: torch.dtype = EXACT) -> Tensor:
    return torch.randn(shape, generator=stream(0, name)).to(DEVICE, dtype).requires_grad_()


def apart(x: Tensor) -> Tensor:
    """The middle of a larger tensor's second dimension, as the part of a stack is."""
    around = torch.cat([x, x, x], dim=1).detach()
    length = x.shape[1]
    around[:, length : 2 * length] = x
    return around.narrow(1, length, length)


def check(
    ours: Tensor, expected: Tensor, inputs: list[Tensor], tolerance: float = TOLERANCE
) -> None:
    """Both results and their gradients are the same."""
    slope = draw(*expected.shape, name="slope", dtype=expected.dtype).detach()
    assert ours.dtype == expected.dtype
    assert ours.shape == expected.shape
    for one, other in zip(
        [ours, *torch.autograd.grad(ours, inputs, apart(slope))],
        [expected, *torch.autograd.grad(expected, inputs, slope)],
        strict=True,
    ):
        assert float((one - other).detach().norm()) <= tolerance * float(other.detach().norm())


@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (3, 2), (5, 2), (7, 1)])
def test_convolve(
    fused: Any, kernel: int, dilation: int, stride: int, size: tuple[int, int]
) -> None:
    x_nkchw, taps = draw(3, 2, 3, *size), draw(6, 1, kernel, kernel, name="w")
    weight_koi = draw(2, 5, 3, name="p")
    kernels = Kernels(taps, stride, dilation)
    expected = TorchArithmetic().convolve([Slide(x_nkchw, kernels)], weight_koi)
    ours = fused.convolve([Slide(x_nkchw, kernels)], weight_koi)
    check(ours, expected, [x_nkchw, taps, weight_koi])
    torch.testing.assert_close(fused.convolve([Slide(apart(x_nkchw), kernels)], weight_koi), ours)


def test_convolutions_of_several_images_side_by_side(fused: Any) -> None:
    large, small = draw(3, 2, 4, 9, 8), draw(3, 1, 4, 5, 4, name="small")
    taps = [draw(each, 1, kernel, kernel, name=f"w{kernel}") for each, kernel in ((8, 3), (8, 5))]
    last = draw(4, 1, 7, 7, name="w7")
    weight_koi = draw(5, 6, 4, name="p")
    slides = [
        Slide(large, Kernels(taps[0], 2, 1)),
        Slide(small, Kernels(last, 1, 1)),
        Slide(large, Kernels(taps[1], 2, 2)),
    ]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [large, small, *taps, last, weight_koi],
    )


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 2], [1, 2]])
def test_any_gradients_of_a_convolution(fused: Any, wanted: list[int]) -> None:
    inputs = [draw(3, 2, 4, 6, 6), draw(8, 1, 3, 3, name="w"), draw(2, 5, 4, name="p")]
    of_both = []
    for form in (fused, TorchArithmetic()):
        given = [each if index in wanted else each.detach() for index, each in enumerate(inputs)]
        slides = [Slide(given[0], Kernels(given[1], 1, 1))]
        of_both.append(form.convolve(slides, given[2]))
    check(of_both[0], of_both[1], [inputs[index] for index in wanted])


@pytest.mark.parametrize(
    ("k", "ins", "outs"), [(2, 3, 5), (2, 16, 16), (2, 40, 70), (1, 64, 70), (1, 5, 64)]
)
def test_multiply(fused: Any, k: int, ins: int, outs: int) -> None:
    x_nkihw, weight_koi = draw(3, k, ins, 5, 7), draw(k, outs, ins, name="w")
    expected = TorchArithmetic().multiply(x_nkihw, weight_koi)
    check(fused.multiply(x_nkihw, weight_koi), expected, [x_nkihw, weight_koi])
    torch.testing.assert_close(fused.multiply(apart(x_nkihw), weight_koi), expected)


@pytest.mark.parametrize(("scaled", "shifted"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("follows", ["nothing", "rectify", "add_up"])
@pytest.mark.parametrize("shape", [(3, 2, 5, 5, 7), (1, 3, 4, 9, 9), (2, 1, 80, 16, 16)])
def test_normalise(
    fused: Any, shape: tuple[int, ...], follows: str, scaled: bool, shifted: bool
) -> None:
    settings = {} if follows == "nothing" else {follows: True}
    # Far from zero, where differences of large sums would be nothing but rounding.
    x_nkchw = (draw(*shape) + 100).detach().requires_grad_()
    scale_kc = draw(*shape[1:3], name="scale") if scaled else None
    shift_kc = draw(*shape[1:3], name="shift") if shifted else None
    expected, measured = TorchArithmetic().normalise(
        x_nkchw, scale_kc, shift_kc, eps=1e-5, **settings
    )
    ours, our_measured = fused.normalise(x_nkchw, scale_kc, shift_kc, eps=1e-5, **settings)
    inputs = [each for each in (x_nkchw, scale_kc, shift_kc) if each is not None]
    # PyTorch's own eps is a double; a kernel's argument is not.
    check(ours, expected, inputs, max(TOLERANCE, 1e-8))
    torch.testing.assert_close(our_measured, measured, rtol=max(TOLERANCE, 1e-6), atol=0)
    torch.testing.assert_close(
        fused.normalise(apart(x_nkchw), scale_kc, shift_kc, eps=1e-5, **settings)[0], ours
    )


def test_lower_precision_is_summed_in_single(fused: Any, depthwise: Any) -> None:
    x_nkchw = draw(4, 2, 16, 8, 8, dtype=torch.bfloat16)
    exact = x_nkchw.detach().float()
    _, measured_2kc = fused.normalise(x_nkchw, None, None, eps=1e-5)
    assert measured_2kc.dtype == torch.float32
    _, expected_2kc = TorchArithmetic().normalise(exact, None, None, eps=1e-5)
    torch.testing.assert_close(measured_2kc, expected_2kc, rtol=1e-4, atol=1e-5)
    taps = draw(32, 1, 5, 5, name="w", dtype=torch.float32)
    weight_koi = draw(2, 16, 16, name="p", dtype=torch.float32)
    slides = [Slide(exact, Kernels(taps, 1, 2))]
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
        depthwise.convolve(exact.bfloat16().flatten(1, 2), slides[0].kernels, ours)
        ours = ours.view_as(expected)
    assert float((ours - expected).detach().norm()) < 8e-3 * float(expected.detach().norm())


def test_what_is_between_is_not_kept_nor_what_only_weights_need(fused: Any) -> None:
    x_nkchw, taps = draw(2, 1, 4, 6, 6), draw(4, 1, 3, 3, name="w")
    weight_koi = draw(1, 5, 4, name="p")
    kept: list[torch.Size] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        fused.convolve([Slide(x_nkchw, Kernels(taps, 1, 1))], weight_koi)
        assert kept.count(x_nkchw.shape) == 1
        kept.clear()
        fixed = Kernels(taps.detach(), 1, 1)
        fused.convolve([Slide(x_nkchw, fixed)], weight_koi.detach())
        fused.multiply(x_nkchw, weight_koi.detach())
    assert all(math.prod(shape) < x_nkchw.numel() for shape in kept)


def test_there_is_no_second_derivative(fused: Any) -> None:
    x_nkchw, weight_koi = draw(2, 1, 4, 6, 6), draw(1, 4, 4, name="p")
    slide = Slide(x_nkchw, Kernels(draw(4, 1, 3, 3, name="w"), 1, 1))
    for y in (
        fused.convolve([slide], weight_koi),
        fused.multiply(x_nkchw, weight_koi),
        fused.normalise(x_nkchw, None, None, eps=1e-5)[0],
    ):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(y.square().sum(), x_nkchw, create_graph=True)


def test_one_value_for_a_channel_is_refused(fused: Any) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused.normalise(draw(1, 2, 3, 1, 1), None, None, eps=1e-5)


@pytest.mark.parametrize("kind", ["darts", "sharp_darts"])
def test_a_network_is_the_same_function(
    fused: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (8, 5)
    spec = spec_of({"kind": kind, "channels": 2, "cells": 3, "nodes": 1})
    plain = supernet(spec, size, EXACT).to(DEVICE)
    planned = copy.deepcopy(plain)
    planned.plan(GroupedPlan)
    for module in (grouped, sharing):
        monkeypatch.setattr(module, "arithmetic_for", lambda _: fused)
    images = batch(size, EXACT).to(DEVICE)
    loss, gradients = loss_and_gradients(plain, images)
    ours, our_gradients = loss_and_gradients(planned, images)
    assert float(ours) == pytest.approx(float(loss), rel=TOLERANCE)
    assert distance(our_gradients, gradients) < 100 * TOLERANCE
    assert distance(buffers(planned), buffers(plain)) < 100 * TOLERANCE


def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Python interprets more than Triton compiles."""
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
