"""A GPU's products, interpreted where there is none, and how they round."""

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from search_core.relaxation.torch_arithmetic import TorchArithmetic
from tests.search_core.fused_checks import DEVICE, apart, check, draw


@pytest.mark.parametrize(
    ("k", "ins", "outs"), [(2, 3, 5), (2, 16, 16), (2, 40, 70), (1, 64, 70), (1, 5, 64)]
)
def test_multiply(fused: Any, k: int, ins: int, outs: int) -> None:
    x_nkihw, weight_koi = draw(3, k, ins, 5, 7), draw(k, outs, ins, name="w")
    expected = TorchArithmetic().multiply(x_nkihw, weight_koi)
    check(fused.multiply(x_nkihw, weight_koi), expected, [x_nkihw, weight_koi])
    torch.testing.assert_close(fused.multiply(apart(x_nkihw), weight_koi), expected)


@pytest.mark.parametrize(
    ("outs", "block"), [(5, 16), (64, 64), (65, 128), (128, 128), (192, 64), (256, 128)]
)
def test_products_come_in_large_blocks_where_none_is_half_empty(
    fused: Any, outs: int, block: int
) -> None:
    assert import_module("search_core.relaxation.fused.pointwise")._block_of_outs(outs) == block


def test_products_round_as_convolutions_do(fused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pointwise = import_module("search_core.relaxation.fused.pointwise")
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert [pointwise._precision(each) for each in (single, double)] == ["tf32x3", "ieee"]
    monkeypatch.setattr(pointwise, "rounds_to_tf32", lambda _: True)
    assert [pointwise._precision(each) for each in (single, double)] == ["tf32", "ieee"]


def in_tf32(x: Tensor) -> Tensor:
    """The nearest numbers with a fraction of ten bits, in double precision."""
    mantissa, exponent = torch.frexp(x.detach().double())
    return torch.ldexp((mantissa * 2**11).round(), exponent - 11)


def test_products_in_tf32_are_rounded_to_the_nearest(
    fused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointwise = import_module("search_core.relaxation.fused.pointwise")
    monkeypatch.setattr(pointwise, "rounds_to_tf32", lambda _: True)
    x_nkihw = draw(3, 2, 20, 5, 7, dtype=torch.float32)
    weight_koi = draw(2, 9, 20, name="weight", dtype=torch.float32)
    y_nkohw = fused.multiply(x_nkihw, weight_koi)
    slope_nkohw = draw(*y_nkohw.shape, name="slope", dtype=torch.float32).detach()
    found = torch.autograd.grad(y_nkohw, [x_nkihw, weight_koi], slope_nkohw)
    x, weight, slope = map(in_tf32, (x_nkihw, weight_koi, slope_nkohw))
    for ours, expected in (
        (y_nkohw, torch.einsum("koi,nkihw->nkohw", weight, x)),
        (found[0], torch.einsum("koi,nkohw->nkihw", weight, slope)),
        (found[1], torch.einsum("nkohw,nkihw->koi", slope, x)),
    ):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")
def test_what_is_no_number_stays_so_in_tf32(fused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pointwise = import_module("search_core.relaxation.fused.pointwise")
    monkeypatch.setattr(pointwise, "rounds_to_tf32", lambda _: True)
    # A GPU's has all bits set.
    bits = torch.tensor([0x7FFFFFFF, -1, 0x7F800000], dtype=torch.int32, device=DEVICE)
    x_nkihw = bits.view(torch.float32).view(1, 1, 1, 1, 3)
    product = fused.multiply(x_nkihw, torch.ones(1, 1, 1, device=DEVICE)).flatten()
    assert product.isnan().tolist() == [True, True, False]
    assert product[2] == torch.inf
