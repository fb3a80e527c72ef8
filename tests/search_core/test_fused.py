"""The kernels of a GPU, interpreted where there is none, against PyTorch's operations."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from search_core.randomness import stream
from search_core.relaxation import GroupedPlan, arithmetic, grouped, sharing
from search_core.relaxation.arithmetic import Kernels, TorchArithmetic
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
def test_depthwise(
    fused: Any, kernel: int, dilation: int, stride: int, size: tuple[int, int]
) -> None:
    x_nchw, weight = draw(3, 6, *size), draw(6, 1, kernel, kernel, name="w")
    kernels = [Kernels(weight, stride, dilation)]
    [expected] = TorchArithmetic().depthwise(x_nchw, kernels)
    [ours] = fused.depthwise(x_nchw, kernels)
    check(ours, expected, [x_nchw, weight])
    torch.testing.assert_close(fused.depthwise(apart(x_nchw), kernels)[0], expected)


def test_depthwise_convolutions_of_the_same_images(fused: Any) -> None:
    x_nchw = draw(3, 4, 8, 8)
    weights = [draw(4, 1, kernel, kernel, name=f"w{kernel}") for kernel in (3, 5, 7)]
    kernels = [Kernels(each, 1, dilation) for dilation, each in enumerate(weights, 1)]
    expected = torch.stack(list(TorchArithmetic().depthwise(x_nchw, kernels)))
    check(torch.stack(list(fused.depthwise(x_nchw, kernels))), expected, [x_nchw, *weights])


@pytest.mark.parametrize(("ins", "outs"), [(3, 5), (16, 16), (40, 70)])
def test_pointwise(fused: Any, ins: int, outs: int) -> None:
    x_nkihw, weight_koi = draw(3, 2, ins, 5, 7), draw(2, outs, ins, name="w")
    expected = TorchArithmetic().pointwise(x_nkihw, weight_koi)
    check(fused.pointwise(x_nkihw, weight_koi), expected, [x_nkihw, weight_koi])
    torch.testing.assert_close(fused.pointwise(apart(x_nkihw), weight_koi), expected)


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


def test_lower_precision_is_summed_in_single(fused: Any) -> None:
    x_nkchw = draw(4, 2, 16, 8, 8, dtype=torch.bfloat16)
    exact = x_nkchw.detach().float()
    _, measured_2kc = fused.normalise(x_nkchw, None, None, eps=1e-5)
    assert measured_2kc.dtype == torch.float32
    _, expected_2kc = TorchArithmetic().normalise(exact, None, None, eps=1e-5)
    torch.testing.assert_close(measured_2kc, expected_2kc, rtol=1e-4, atol=1e-5)
    weight = draw(32, 1, 5, 5, name="w", dtype=torch.float32)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        [ours] = fused.depthwise(exact.flatten(1, 2), [Kernels(weight, 1, 2)])
        product = fused.pointwise(exact, draw(2, 16, 16, name="p", dtype=torch.float32))
    [expected] = TorchArithmetic().depthwise(exact.flatten(1, 2), [Kernels(weight, 1, 2)])
    assert ours.dtype == product.dtype == torch.bfloat16
    assert float((ours - expected).detach().norm()) < 4e-3 * float(expected.detach().norm())


def test_what_only_weights_need_is_not_kept(fused: Any) -> None:
    x_nchw, weight = draw(2, 4, 6, 6), draw(4, 1, 3, 3, name="w").detach()
    kept: list[torch.Size] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        fused.depthwise(x_nchw, [Kernels(weight, 1, 1)])
        fused.pointwise(x_nchw.unsqueeze(1), draw(1, 4, 4, name="p").detach())
    assert x_nchw.shape not in kept
    assert (2, 1, 4, 36) not in kept


def test_there_is_no_second_derivative(fused: Any) -> None:
    x_nchw, weight = draw(2, 4, 6, 6), draw(4, 1, 3, 3, name="w")
    [y_nchw] = fused.depthwise(x_nchw, [Kernels(weight, 1, 1)])
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y_nchw.sum(), x_nchw, create_graph=True)


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
