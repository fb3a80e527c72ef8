"""The compiled kernels against PyTorch's own operations."""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search_core.randomness import stream
from search_core.relaxation import (
    Multipliers,
    Plan,
    RunningStatistics,
    Shared,
    Term,
    lanes,
    parallel,
    pools,
)
from search_core.relaxation.kernels.compiling import LANES
from search_core.relaxation.kernels.pointwise_gradients import is_wide

CHANNELS = 6
IMAGES = [1, LANES, 2 * LANES + 3]


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=stream(0, str(shape))).to(dtype)


def stage(
    kernel: int, stride: int, dilation: int, *, ins: int = CHANNELS, outs: int = 9
) -> nn.Sequential:
    torch.manual_seed(0)
    depthwise = nn.Conv2d(
        ins,
        ins,
        kernel,
        stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=ins,
        bias=False,
    )
    return nn.Sequential(
        nn.ReLU(), depthwise, nn.Conv2d(ins, outs, 1, bias=False), nn.BatchNorm2d(outs)
    ).double()


def summed(operations: nn.ModuleList, x_nchw: Tensor, multipliers_k: Tensor) -> Tensor:
    statistics = RunningStatistics()
    shared = Shared(statistics)
    shared.add("x", x_nchw)
    plan = Plan([Term("x", "y", index, each) for index, each in enumerate(operations)])
    plan(shared, Multipliers([plan]).of(multipliers_k)[0], statistics)
    return shared.get("y")


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [3, LANES])
def test_images_go_into_lanes_and_back(
    images: int, layout: torch.memory_format, channels: int
) -> None:
    x_nchw = drawn(images, channels, 5, 7).contiguous(memory_format=layout).requires_grad_()
    inside = lanes.into(x_nchw)
    groups = -(-images // LANES)
    assert inside.values.shape == (groups, channels, 5, 7, LANES)
    by_image = inside.values.permute(0, 4, 1, 2, 3).reshape(groups * LANES, channels, 5, 7)
    assert torch.equal(by_image[:images], x_nchw)
    assert not by_image[images:].any()
    back_nchw = lanes.out_of(inside)
    assert torch.equal(back_nchw, x_nchw)
    weight_nchw = drawn(images, channels, 5, 7) * 2
    (gradient_nchw,) = torch.autograd.grad(back_nchw, x_nchw, weight_nchw)
    assert torch.equal(gradient_nchw, weight_nchw)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_stages(kernel: int, stride: int, dilation: int) -> None:
    images = IMAGES[(kernel + stride + dilation) % len(IMAGES)]
    x_nchw = drawn(images, CHANNELS, 9, 13).requires_grad_()
    assert_planned_as_it_is(stage(kernel, stride, dilation), x_nchw)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("outs", [64, 70, 100])
def test_wide_stages(outs: int, images: int, kernel: int, stride: int) -> None:
    ins = 8 * LANES
    assert is_wide(outs, ins) == (outs != 70)
    x_nchw = drawn(images, ins, 5, 7).requires_grad_()
    assert_planned_as_it_is(stage(kernel, stride, 1, ins=ins, outs=outs), x_nchw)


def test_gradients_of_multipliers_alone() -> None:
    operations = nn.ModuleList(
        nn.Sequential(stage(3, 1, 1), stage(3, 2, 1, ins=9)) for _ in range(2)
    ).requires_grad_(False)
    x_nchw = drawn(5, CHANNELS, 9, 13)
    multipliers_k = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    sum_nchw = summed(operations, x_nchw, multipliers_k)
    weight_nchw = drawn(*sum_nchw.shape)
    (ours_k,) = torch.autograd.grad(sum_nchw, multipliers_k, weight_nchw)
    expected_k = torch.stack([(each(x_nchw) * weight_nchw).sum() for each in operations])
    torch.testing.assert_close(ours_k, expected_k)


def assert_planned_as_it_is(operation: nn.Module, x_nchw: Tensor) -> None:
    operations = nn.ModuleList([operation])
    theirs = copy.deepcopy(operations[0])
    multipliers_k = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    sum_nchw = summed(operations, x_nchw, multipliers_k)
    expected_nchw = 0.3 * theirs(x_nchw)
    torch.testing.assert_close(sum_nchw, expected_nchw)
    weight_nchw = drawn(*sum_nchw.shape)
    ours = torch.autograd.grad(sum_nchw, [x_nchw, *operations.parameters()], weight_nchw)
    expected = torch.autograd.grad(expected_nchw, [x_nchw, *theirs.parameters()], weight_nchw)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def pool_layers() -> list[nn.MaxPool2d | nn.AvgPool2d]:
    found: list[nn.MaxPool2d | nn.AvgPool2d] = []
    for side in (1, 3, 5):
        for stride in (1, 2):
            found += [
                nn.MaxPool2d(side, stride, side // 2),
                nn.AvgPool2d(side, stride, side // 2),
                nn.AvgPool2d(side, stride, side // 2, count_include_pad=False),
            ]
    return [*found, nn.MaxPool2d(15, 1, 7)]


@pytest.mark.parametrize("layer", pool_layers(), ids=str)
def test_pools(layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
    assert pools.has_kernel(layer)
    # Few different values, so that a window has several largest ones.
    x_nchw = (2 * drawn(LANES + 2, 3, 6, 9)).round().requires_grad_()
    y_nchw = lanes.out_of(pools.pool(lanes.into(x_nchw), layer))
    expected_nchw = layer(x_nchw)
    torch.testing.assert_close(y_nchw, expected_nchw)
    weight_nchw = drawn(*y_nchw.shape)
    (ours,) = torch.autograd.grad(y_nchw, x_nchw, weight_nchw)
    (expected,) = torch.autograd.grad(expected_nchw, x_nchw, weight_nchw)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 1),
        nn.MaxPool2d(3, 1, 1, dilation=2),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d((3, 1), 1, 1),
        nn.MaxPool2d(17, 1, 8),
        nn.AvgPool2d(3, 1, 1, divisor_override=4),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=str,
)
def test_other_pools_are_left_to_pytorch(layer: nn.Module) -> None:
    assert not pools.has_kernel(layer)


def test_what_is_not_a_number_stays_so() -> None:
    x_nchw = drawn(LANES, 2, 6, 6)
    x_nchw[3, 1, 2, 2] = math.nan
    layer = nn.MaxPool2d(3, 1, 1)
    y_nchw = lanes.out_of(pools.pool(lanes.into(x_nchw), layer))
    torch.testing.assert_close(y_nchw, layer(x_nchw), equal_nan=True)
    operations = nn.ModuleList([stage(3, 1, 1)])
    assert summed(operations, x_nchw, torch.ones(1, dtype=torch.float64)).isnan().all()


@pytest.mark.parametrize("images", IMAGES[1:])
def test_normalisations(images: int) -> None:
    # Far from 0, where squares lose digits.
    x_nchw = (drawn(images, 3, 5, 4) + 1e4).requires_grad_()
    normalised, mean_c, variance_c = pools.normalise(lanes.into(x_nchw), 1e-5)
    norm = nn.BatchNorm2d(3, affine=False, momentum=1.0).double()
    expected_nchw = norm(x_nchw)
    count = images * 5 * 4
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(mean_c, norm.running_mean)
    torch.testing.assert_close(
        variance_c * count / (count - 1), norm.running_var, rtol=1e-9, atol=0
    )
    y_nchw = lanes.out_of(normalised)
    torch.testing.assert_close(y_nchw, expected_nchw, rtol=1e-7, atol=1e-7)
    weight_nchw = drawn(*y_nchw.shape)
    (ours,) = torch.autograd.grad(y_nchw, x_nchw, weight_nchw)
    (expected,) = torch.autograd.grad(expected_nchw, x_nchw, weight_nchw)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9)


def test_statistics_far_from_zero() -> None:
    operation = stage(3, 1, 1)
    norm = operation[3]
    assert isinstance(norm, nn.BatchNorm2d)
    x_nchw = drawn(LANES, CHANNELS, 8, 8) * 1e-3 + 100
    theirs = copy.deepcopy(operation).float()
    expected_nchw = copy.deepcopy(operation)(x_nchw)
    ours_nchw = summed(nn.ModuleList([operation.float()]), x_nchw.float(), torch.ones(1))
    # No worse than PyTorch's own single precision.
    limit = 2 * (theirs(x_nchw.float()) - expected_nchw).abs().max() + 1e-4
    assert (ours_nchw - expected_nchw).abs().max() < limit


def test_passes_do_not_disturb_each_other() -> None:
    operations = nn.ModuleList([stage(3, 1, 1), stage(5, 1, 2)])
    multipliers_k = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    plan = Plan([Term("x", "y", index, each) for index, each in enumerate(operations)])

    def forward(x_nchw: Tensor) -> Tensor:
        statistics = RunningStatistics()
        shared = Shared(statistics)
        shared.add("x", x_nchw)
        plan(shared, Multipliers([plan]).of(multipliers_k)[0], statistics)
        return shared.get("y").square().sum()

    inputs = [drawn(LANES, CHANNELS, 7, 7), drawn(LANES, CHANNELS, 7, 7) + 1]
    alone = [torch.autograd.grad(forward(each), multipliers_k)[0] for each in inputs]
    # Both graphs live at the same time, and the first one is used twice.
    first, second = (forward(each) for each in inputs)
    for loss, expected in ((first, alone[0]), (second, alone[1]), (first, alone[0])):
        (gradient,) = torch.autograd.grad(loss, multipliers_k, retain_graph=True)
        assert torch.equal(gradient, expected)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_threads_share_the_work_and_change_nothing() -> None:
    operations = nn.ModuleList([stage(k, 1, d) for k in (3, 5) for d in (1, 2)])
    multipliers_k = torch.rand(4, dtype=torch.float64, generator=stream(0, "k"))

    def step() -> list[Tensor]:
        x_nchw = drawn(LANES, CHANNELS, 8, 8).requires_grad_()
        sum_nchw = summed(copy.deepcopy(operations), x_nchw, multipliers_k)
        return [sum_nchw, *torch.autograd.grad(sum_nchw.square().sum(), x_nchw)]

    first, again = step(), step()
    assert all(map(torch.equal, first, again))
    torch.set_num_threads(1)
    for one, other in zip(step(), first, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("layer", pool_layers(), ids=str)
def test_threads_share_the_channels_of_pools(layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
    def step(channels: int) -> list[Tensor]:
        x_nchw = drawn(LANES + 1, channels, 6, 7).requires_grad_()
        normalised, *statistics = pools.normalise(pools.pool(lanes.into(x_nchw), layer), 1e-5)
        y_nchw = lanes.out_of(normalised)
        weight_nchw = drawn(*y_nchw.shape) ** 2
        return [y_nchw, *statistics, *torch.autograd.grad(y_nchw, x_nchw, weight_nchw)]

    # Fewer channels than threads, as many for each, and not as many.
    for channels in (1, 2, 5):
        torch.set_num_threads(2)
        shared = step(channels)
        torch.set_num_threads(1)
        assert all(map(torch.equal, shared, step(channels)))


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_no_number_passes_a_pool_as_in_pytorch(stride: int) -> None:
    layer = nn.MaxPool2d(3, stride, 1)
    x_nchw = drawn(LANES, 2, 6, 7)
    for place in ((2, 3), (2, 5), (4, 1)):
        x_nchw[1, 0, *place] = math.nan
    x_nchw.requires_grad_()
    y_nchw = lanes.out_of(pools.pool(lanes.into(x_nchw), layer))
    expected_nchw = layer(x_nchw)
    torch.testing.assert_close(y_nchw, expected_nchw, equal_nan=True)
    weight_nchw = drawn(*y_nchw.shape)
    (ours,) = torch.autograd.grad(y_nchw, x_nchw, weight_nchw)
    (expected,) = torch.autograd.grad(expected_nchw, x_nchw, weight_nchw)
    torch.testing.assert_close(ours, expected)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("of_state", [True, False])
def test_gradients_of_a_state_that_is_handed_on_and_convolved(of_state: bool) -> None:
    operations = nn.ModuleList(
        [nn.Identity(), stage(3, 1, 1, outs=CHANNELS), nn.MaxPool2d(3, 1, 1), nn.Identity()]
    )
    x_nchw = drawn(5, CHANNELS, 6, 7).requires_grad_(of_state)
    multipliers_k = torch.tensor([0.3, -0.7, 1.1, 0.4], dtype=torch.float64, requires_grad=True)
    expected_nchw = sum(
        multiplier * operation(x_nchw)
        for multiplier, operation in zip(multipliers_k, operations, strict=True)
    )
    assert isinstance(expected_nchw, Tensor)
    ours_nchw = summed(operations, x_nchw, multipliers_k)
    torch.testing.assert_close(ours_nchw, expected_nchw)
    weight_nchw = drawn(*expected_nchw.shape)
    for inputs in ([x_nchw, multipliers_k], [x_nchw], [multipliers_k], [*operations.parameters()]):
        if not all(each.requires_grad for each in inputs):
            continue
        ours, expected = (
            torch.autograd.grad(each, inputs, weight_nchw, retain_graph=True)
            for each in (ours_nchw, expected_nchw)
        )
        torch.testing.assert_close(ours, expected)


@pytest.mark.usefixtures("two_threads")
def test_shares_are_even() -> None:
    costs = (5.0, 1.0, 1.0, 3.0, 4.0)
    shares = parallel.shares(costs)
    assert sorted(index for share in shares for index in share) == [0, 1, 2, 3, 4]
    assert [sum(costs[index] for index in share) for share in shares] == [7, 7]
    assert parallel.shares((1.0,)) == ((0,),)


def test_numbers_are_shared() -> None:
    tensor = torch.zeros(2, 3)
    lanes.numbers(tensor)[4] = 1
    assert tensor[1, 1] == 1
    assert np.shares_memory(lanes.numbers(tensor), tensor.numpy())


@pytest.mark.parametrize("is_writable", [True, False])
def test_what_was_compiled_is_kept_where_it_can_be(is_writable: bool, tmp_path: Path) -> None:
    home = tmp_path if is_writable else Path("/proc/none")
    code = (
        "from search_core.relaxation.kernels import rings\n"
        "print(rings.scratch_size(rings.Sizes(16, 4, 4, 8, 8, 3, 1, 1)))"
    )
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    folders = list(tmp_path.glob(".cache/dartboard/kernels-*"))
    assert len(folders) == is_writable
