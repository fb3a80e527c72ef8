"""The kernels of a GPU, interpreted where there is none, against PyTorch's operations."""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.orders import frozen
from search_core.randomness import stream
from search_core.relaxation import GroupedPlan, arithmetic, grouped, sharing, stages
from search_core.relaxation.stacks import whole
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import (
    Convolution,
    Kernels,
    Known,
    Normalisation,
    Part,
    Product,
    Slide,
)
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


@pytest.fixture
def fused(depthwise: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernels. Without a GPU Python runs their programs: fewer ones, of more threads."""
    from search_core.relaxation import fused

    if DEVICE.type == "cpu":
        monkeypatch.setattr(depthwise, "_NUM_WARPS", 32)
        monkeypatch.setattr(depthwise, "_NUM_WARPS_OF_WEIGHTS", 32)
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
    expected = TorchArithmetic().convolve([Slide(whole(x_nkchw), kernels)], weight_koi)
    ours = fused.convolve([Slide(whole(x_nkchw), kernels)], weight_koi)
    check(ours, expected, [x_nkchw, taps, weight_koi])
    torch.testing.assert_close(
        fused.convolve([Slide(whole(apart(x_nkchw)), kernels)], weight_koi), ours
    )


def test_convolutions_of_several_images_side_by_side(fused: Any) -> None:
    large, small = draw(3, 2, 4, 9, 8), draw(3, 1, 4, 5, 4, name="small")
    taps = [draw(each, 1, kernel, kernel, name=f"w{kernel}") for each, kernel in ((8, 3), (8, 5))]
    last = draw(4, 1, 7, 7, name="w7")
    weight_koi = draw(5, 6, 4, name="p")
    slides = [
        Slide(whole(large), Kernels(taps[0], 2, 1)),
        Slide(whole(small), Kernels(last, 1, 1)),
        Slide(whole(large), Kernels(taps[1], 2, 2)),
    ]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [large, small, *taps, last, weight_koi],
    )


def test_no_task_needs_what_another_makes(fused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slides of the same part add to its gradient in turn; all else may come in any order."""
    large, small, alone = draw(2, 3, 4, 6, 6), draw(2, 1, 4, 6, 6, name="s"), draw(2, 2, 4, 6, 6)
    taps = [draw(4, 1, size, size, name=f"w{index}") for index, size in enumerate((3, 5, 3, 3))]
    weights = [draw(4, 5, 4, name="p"), draw(2, 3, 4, name="q")]
    places = (Part(large, 0, 1), Part(large, 0, 1), Part(large, 1, 1), whole(small))
    slides = [Slide(part, Kernels(each, 1, 1)) for part, each in zip(places, taps, strict=True)]
    works = [Convolution(slides, weights[0]), Product(alone, weights[1])]
    inputs = [large, small, alone, *taps, *weights]

    def made() -> list[Tensor]:
        results = fused.convolve_all(works)
        normalised = fused.normalise_all(
            [Normalisation(each, None, None, 1e-5) for each in results]
        )
        results += [each for each, _ in normalised]
        loss = sum((each * each.detach().cos()).sum() for each in results)
        return [*results, *torch.autograd.grad(loss, inputs)]

    expected = made()
    for module in ("separable", "together"):
        monkeypatch.setattr(f"search_core.relaxation.fused.{module}.at_once", backwards)
    assert all(map(torch.equal, made(), expected))


def backwards(tasks: Sequence[Any]) -> list[Any]:
    """Does tasks, the last one first."""
    return [task.work() for task in reversed(tasks)][::-1]


@pytest.mark.parametrize(
    ("outs", "block"), [(5, 16), (64, 64), (65, 128), (128, 128), (192, 64), (256, 128)]
)
def test_products_come_in_large_blocks_where_none_is_half_empty(
    fused: Any, outs: int, block: int
) -> None:
    assert import_module("search_core.relaxation.fused.pointwise")._block_of_outs(outs) == block


def test_parts_that_overlap_are_refused(fused: Any) -> None:
    stack_nkchw, taps = draw(2, 3, 4, 6, 6), draw(8, 1, 3, 3, name="w")
    slides = [Slide(Part(stack_nkchw, first, 2), Kernels(taps, 1, 1)) for first in (0, 1)]
    with pytest.raises(ValueError, match="overlap"):
        fused.convolve(slides, draw(4, 4, 4, name="p"))


def test_each_part_of_a_stack_is_read_where_it_lies(fused: Any) -> None:
    stack_nkchw = draw(2, 4, 4, 6, 6)
    slides = [
        Slide(
            Part(stack_nkchw, first, length),
            Kernels(draw(4 * length, 1, size, size, name=f"w{size}"), 1, 1),
        )
        for first, length, size in ((0, 2, 3), (3, 1, 5))  # nobody reads the third
    ]
    weight_koi = draw(3, 5, 4, name="p")
    inputs = [stack_nkchw, weight_koi, *(each.kernels.weight_c1kk for each in slides)]
    check(
        fused.convolve(slides, weight_koi), TorchArithmetic().convolve(slides, weight_koi), inputs
    )


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)])
def test_the_same_images_for_several_kernels(fused: Any, stride: int, dilation: int) -> None:
    x_nkchw = draw(2, 2, 3, 6, 7)
    taps = [draw(18, 1, size, size, name=f"w{size}") for size in (3, 5)]
    weight_koi = draw(12, 4, 3, name="p")
    slides = [Slide(whole(x_nkchw), Kernels(each, stride, dilation)) for each in taps]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [x_nkchw, *taps, weight_koi],
    )


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 3)])
def test_kernels_that_overlap_little(fused: Any, kernel: int, stride: int) -> None:
    x_nkchw, taps = draw(2, 1, 3, 7, 6), draw(3, 1, kernel, kernel, name="w")
    weight_koi = draw(1, 4, 3, name="p")
    slides = [Slide(whole(x_nkchw), Kernels(taps, stride, 1))]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [x_nkchw, taps, weight_koi],
    )


def test_more_rows_and_columns_than_a_program_has(fused: Any) -> None:
    x_nkchw, taps = draw(2, 1, 2, 35, 37), draw(2, 1, 5, 5, name="w")
    weight_koi = draw(1, 2, 2, name="p")
    for stride in (1, 2):
        slides = [Slide(whole(x_nkchw), Kernels(taps, stride, 1))]
        check(
            fused.convolve(slides, weight_koi),
            TorchArithmetic().convolve(slides, weight_koi),
            [x_nkchw, taps, weight_koi],
        )


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 2], [1, 2]])
def test_any_gradients_of_a_convolution(fused: Any, wanted: list[int]) -> None:
    inputs = [draw(3, 2, 4, 6, 6), draw(8, 1, 3, 3, name="w"), draw(2, 5, 4, name="p")]
    of_both = []
    for form in (fused, TorchArithmetic()):
        given = [each if index in wanted else each.detach() for index, each in enumerate(inputs)]
        slides = [Slide(whole(given[0]), Kernels(given[1], 1, 1))]
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


@pytest.mark.parametrize(("scaled", "shifted"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    "settings", [{}, {"rectify": True}, {"sums": ((0,),)}], ids=["alone", "rectified", "summed"]
)
@pytest.mark.parametrize("shape", [(3, 2, 5, 5, 7), (1, 3, 4, 9, 9), (2, 1, 80, 16, 16)])
def test_normalise(
    fused: Any, shape: tuple[int, ...], settings: dict[str, Any], scaled: bool, shifted: bool
) -> None:
    if "sums" in settings:
        settings = {"sums": (tuple(range(shape[1])),)}
    # Far from zero, where differences of large sums would be nothing but rounding.
    x_nkchw = (draw(*shape) + 100).detach().requires_grad_()
    scale_kc = draw(*shape[1:3], name="scale") if scaled else None
    shift_kc = draw(*shape[1:3], name="shift") if shifted else None
    expected, measured = TorchArithmetic().normalise(
        x_nkchw, scale_kc, shift_kc, eps=1e-5, **settings
    )
    ours, our_measured = fused.normalise(x_nkchw, scale_kc, shift_kc, eps=1e-5, **settings)
    inputs = [each for each in (x_nkchw, scale_kc, shift_kc) if each is not None]
    # PyTorch's own eps is a double; a kernel's argument is not. In single precision a mean of 100
    # is rounded by some millionths, which is as much of a normalised value.
    check(ours, expected, inputs, max(5 * TOLERANCE, 1e-8))
    torch.testing.assert_close(our_measured, measured, rtol=max(TOLERANCE, 1e-6), atol=0)
    torch.testing.assert_close(
        fused.normalise(apart(x_nkchw), scale_kc, shift_kc, eps=1e-5, **settings)[0], ours
    )


@pytest.mark.parametrize("is_based", [False, True])
def test_sums_of_some_operations_each(fused: Any, is_based: bool) -> None:
    sums = ((0, 3), (4, 1, 5), (2,))
    x_nkchw, scale_kc = draw(3, 6, 4, 5, 7), draw(6, 4, name="scale")
    base_ntchw = draw(3, 3, 4, 5, 7, name="base") if is_based else None
    ours, expected = (
        form.normalise(x_nkchw, scale_kc, None, eps=1e-5, sums=sums, base_ntchw=base_ntchw)[0]
        for form in (fused, TorchArithmetic())
    )
    inputs = [each for each in (x_nkchw, scale_kc, base_ntchw) if each is not None]
    check(ours, expected, inputs, max(TOLERANCE, 1e-8))


@pytest.mark.parametrize("scaled", [False, True])
def test_sums_of_operations_times_factors(fused: Any, scaled: bool) -> None:
    sums = ((0, 3), (4, 1, 5), (2,))
    x_nkchw, factor_k = draw(3, 6, 4, 5, 7), draw(6, name="factor")
    affine = [draw(6, 4, name=name) for name in ("scale", "shift")] if scaled else [None, None]
    base_ntchw = draw(3, 3, 4, 5, 7, name="base")
    ours, expected = (
        form.normalise(
            x_nkchw, *affine, eps=1e-5, sums=sums, factor_k=factor_k, base_ntchw=base_ntchw
        )[0]
        for form in (fused, TorchArithmetic())
    )
    inputs = [each for each in (x_nkchw, factor_k, base_ntchw, *affine) if each is not None]
    check(ours, expected, inputs, max(TOLERANCE, 1e-8))


@pytest.mark.parametrize("operations", [3, 6])
@pytest.mark.parametrize("settings", [{}, {"rectify": True}, {"sums": ()}])
def test_known_statistics(fused: Any, operations: int, settings: dict[str, Any]) -> None:
    x_nkchw = draw(2, 3, 4, 1, 2)
    known = Known(*draw(2, operations, 4, name="known").square().detach())
    scale_kc, shift_kc = (draw(operations, 4, name=name) for name in ("scale", "shift"))
    if "sums" in settings:
        first, *others = range(operations)
        settings = {"sums": ((first,), tuple(others)), "factor_k": draw(operations, name="factor")}
    work = Normalisation(x_nkchw, scale_kc, shift_kc, 1e-5, **settings)
    with torch.no_grad():
        ours, expected = (form.normalise_by(known, work) for form in (fused, TorchArithmetic()))
    assert ours.shape == expected.shape
    assert float((ours - expected).norm()) <= 1e-6 * float(expected.norm())
    with pytest.raises(RuntimeError, match="no derivative"):
        fused.normalise_by(known, work)


@pytest.mark.parametrize("num_sums", [1, 3])
@pytest.mark.parametrize("is_based", [False, True])
def test_mix(fused: Any, num_sums: int, is_based: bool) -> None:
    alone, twice = draw(3, 4, 5, 7, name="a"), draw(3, 4, 5, 7, name="b")
    stack_nkchw, partly = draw(3, 2, 4, 5, 7, name="c"), draw(3, 3, 4, 5, 7, name="d")
    sources = [alone, apart(twice).requires_grad_(), stack_nkchw, partly]
    features = [
        whole(sources[0].unsqueeze(1)),
        whole(sources[1].unsqueeze(1)),
        Part(stack_nkchw, 1, 1),
        Part(partly, 2, 1),
        Part(stack_nkchw, 0, 1),
        Part(partly, 2, 1),  # once more
    ]
    weights_tk = draw(num_sums, 6, name="weights")
    base_ntchw = draw(3, num_sums, 4, 5, 7, name="base") if is_based else None
    ours = fused.mix(features, weights_tk, base_ntchw)
    expected = TorchArithmetic().mix(features, weights_tk, base_ntchw)
    inputs = [*sources, weights_tk, *([] if base_ntchw is None else [base_ntchw])]
    check(ours, expected, inputs)
    check(
        fused.mix(features, weights_tk.detach(), base_ntchw),
        TorchArithmetic().mix(features, weights_tk.detach(), base_ntchw),
        sources,
    )


_MAXIMUM, _AVERAGE, _INSIDE = "maximum", "average", "average of what is inside"


def pool_of(kind: str, side: int, stride: int) -> Any:
    if kind == _MAXIMUM:
        return nn.MaxPool2d(side, stride, side // 2)
    return nn.AvgPool2d(side, stride, side // 2, count_include_pad=kind == _AVERAGE)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize(
    "kinds",
    [(), (_MAXIMUM,), (_AVERAGE,), (_INSIDE,), (_AVERAGE, _MAXIMUM), (_MAXIMUM, _INSIDE, _AVERAGE)],
    ids=str,
)
def test_read(
    fused: Any, kinds: tuple[str, ...], side: int, stride: int, size: tuple[int, int]
) -> None:
    layers = [pool_of(kind, side, stride) for kind in kinds]
    # Many values are the same ones.
    x_nchw = draw(3, 4, *size).mul(2).round().detach().requires_grad_()
    for given_nchw in (x_nchw, apart(x_nchw).requires_grad_()):
        for rectify in (False, True):
            if not rectify and not layers:
                continue
            ours = fused.read(given_nchw, rectify=rectify, pools=layers)
            expected = TorchArithmetic().read(given_nchw, rectify=rectify, pools=layers)
            assert [each is None for each in ours] == [each is None for each in expected]
            flat = [
                torch.cat([each.flatten(1) for each in results if each is not None], dim=1)
                for results in (ours, expected)
            ]
            check(flat[0], flat[1], [given_nchw])
            for index in range(1, len(ours)):  # with the gradient of one reader only
                one, other = (
                    form.read(given_nchw, rectify=rectify, pools=layers)[index]
                    for form in (fused, TorchArithmetic())
                )
                if one is not None and other is not None:
                    check(one, other, [given_nchw])


def test_what_is_summed_up_with_higher_precision_has_it(fused: Any) -> None:
    features = [
        whole(draw(2, 1, 4, 3, 3, name=name, dtype=torch.bfloat16).detach()) for name in "ab"
    ]
    weights_tk = draw(2, 2, name="weights", dtype=torch.float32).detach()
    base_ntchw = draw(2, 2, 4, 3, 3, name="base", dtype=torch.float32).requires_grad_()
    ours = fused.mix(features, weights_tk, base_ntchw)
    assert ours.dtype == torch.float32
    exact = [whole(each.stack_nkchw.float()) for each in features]
    expected = TorchArithmetic().mix(exact, weights_tk, base_ntchw)
    torch.testing.assert_close(ours, expected)


def test_a_base_alone_has_a_gradient(fused: Any) -> None:
    x_nkchw, base_ntchw = draw(2, 2, 3, 4, 4).detach(), draw(2, 1, 3, 4, 4, name="base")
    result, _ = fused.normalise(
        x_nkchw, None, None, eps=1e-5, sums=((0, 1),), base_ntchw=base_ntchw
    )
    (gradient,) = torch.autograd.grad(result.sum(), base_ntchw)
    assert torch.equal(gradient, torch.ones_like(base_ntchw))


def test_what_is_no_number_is_not_rectified(fused: Any) -> None:
    known = Known(*torch.full((2, 1, 2), torch.nan, dtype=EXACT, device=DEVICE))
    x_nkchw = draw(2, 1, 2, 3, 3).detach()
    with torch.no_grad():
        result = fused.normalise_by(known, Normalisation(x_nkchw, None, None, 1e-5, rectify=True))
    assert result.isnan().all()
    _, rectified_nchw, _ = fused.read(torch.nan * x_nkchw[:, 0], rectify=True)
    assert rectified_nchw.isnan().all()


def test_lower_precision_is_summed_in_single(fused: Any, depthwise: Any) -> None:
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
        fused.convolve([Slide(whole(x_nkchw), Kernels(taps, 1, 1))], weight_koi)
        assert kept.count(x_nkchw.shape) == 1
        kept.clear()
        fixed = Kernels(taps.detach(), 1, 1)
        fused.convolve([Slide(whole(x_nkchw), fixed)], weight_koi.detach())
        fused.multiply(x_nkchw, weight_koi.detach())
    assert all(math.prod(shape) < x_nkchw.numel() for shape in kept)


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


def test_one_value_for_a_channel_is_refused(fused: Any) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused.normalise(draw(1, 2, 3, 1, 1), None, None, eps=1e-5)


PRIMITIVES = ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]
CELLS = {"channels": 2, "cells": 3, "primitives": PRIMITIVES}
CUBOID = {
    "kind": "hypercuboid",
    "axes": {"channels": [2, 4], "operation": ["sharp_sep_conv", "resizable_pool"]},
    "levels": 2,
    "strides": [1, 2],
    "final_channels": 4,
}


@pytest.mark.parametrize(
    "space",
    [{"kind": "darts", **CELLS, "nodes": 2}, {"kind": "sharp_darts", **CELLS, "nodes": 1}, CUBOID],
    ids=["darts", "sharp_darts", "hypercuboid"],
)
def test_a_network_is_the_same_function(
    fused: Any, space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (8, 5)
    spec = spec_of(space)
    plain = supernet(spec, size, EXACT).to(DEVICE)
    planned = copy.deepcopy(plain)
    planned.plan(GroupedPlan)
    for module in (grouped, sharing, stages):
        monkeypatch.setattr(module, "arithmetic_for", lambda _: fused)
    images = batch(size, EXACT).to(DEVICE)
    loss, gradients = loss_and_gradients(plain, images)
    our_loss, our_gradients = loss_and_gradients(planned, images)
    assert float(our_loss) == pytest.approx(float(loss), rel=TOLERANCE)
    assert distance(our_gradients, gradients) < 100 * TOLERANCE
    assert distance(buffers(planned), buffers(plain)) < 100 * TOLERANCE
    # In the alphas' half what no alpha leads to has no gradients.
    of_alphas = []
    for network in (plain, planned):
        with frozen(network.weight_parameters()):
            loss = functional.cross_entropy(network(images.images_nchw), images.labels_n)
            of_alphas.append(torch.autograd.grad(loss, network.architecture_parameters()))
    assert distance(*of_alphas) < 100 * TOLERANCE
    plain.eval()
    planned.eval()
    with torch.no_grad():
        expected = plain(images.images_nchw)
        ours = planned(images.images_nchw)
        assert float((ours - expected).norm()) < 1e-5 * float(expected.norm())


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
