from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional

from search_core import primitives
from search_core.convolutions import FactorizedReduce, PixelHalves
from search_core.errors import UnknownNameError
from search_core.primitives import REGISTRY, Slot
from search_core.spec.primitives import PRIMITIVES, Family

ALL = [(family, name) for family in get_args(Family) for name in PRIMITIVES[family]]
C_IN, C_OUT, CHOKE = 6, 10, 4


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def sep_conv_weights(k: int, mid: int) -> int:
    return C_IN * k * k + C_IN * mid + mid * k * k + mid * C_OUT


def test_the_registry_has_exactly_the_names_of_the_spec() -> None:
    assert set(REGISTRY) == set(ALL)


@pytest.mark.parametrize(("family", "name"), ALL)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (5, 8), (8, 5), (1, 1), (2, 3)])
def test_stride_1_keeps_and_stride_2_halves_rounding_up(
    family: Family, name: str, size: tuple[int, int]
) -> None:
    x_nchw = torch.randn((2, 4, *size), generator=torch.Generator().manual_seed(0))
    for affine in (False, True):
        for stride in (1, 2):
            operation = primitives.build(family, name, Slot(4, 4, stride, affine)).eval()
            height, width = (-(-side // stride) for side in size)
            assert operation(x_nchw).shape == (2, 4, height, width)


@pytest.mark.parametrize(("family", "name"), ALL)
def test_channels_change_where_the_primitive_can(family: Family, name: str) -> None:
    for stride in (1, 2):
        slot = Slot(C_IN, C_OUT, stride, affine=True)
        if family == "darts" and "pool" in name:
            with pytest.raises(ValueError, match="cannot turn 6 channels into 10"):
                primitives.build(family, name, slot)
            continue
        output_nchw = primitives.build(family, name, slot)(torch.ones(2, C_IN, 5, 6))
        assert output_nchw.shape == (2, C_OUT, -(-5 // stride), -(-6 // stride))


@pytest.mark.parametrize(("family", "name"), ALL)
def test_affine_decides_whether_norms_have_parameters(family: Family, name: str) -> None:
    for affine in (False, True):
        operation = primitives.build(family, name, Slot(4, 4, 2, affine))
        norms = [each for each in operation.modules() if isinstance(each, nn.BatchNorm2d)]
        assert all(norm.affine is affine for norm in norms)


@pytest.mark.parametrize(
    ("family", "name", "weights"),
    [
        ("darts", "sep_conv_5x5", sep_conv_weights(5, C_OUT)),
        ("sharp", "sep_conv_7x7", sep_conv_weights(7, C_OUT)),
        ("darts", "dil_conv_5x5", C_IN * 25 + C_IN * C_OUT),
        ("sharp", "dil_conv_5x5", sep_conv_weights(5, C_OUT)),
        ("sharp", "flood_conv_3x3", sep_conv_weights(3, 4 * C_OUT)),
        ("sharp", "dil_flood_conv_5x5", sep_conv_weights(5, 4 * C_OUT)),
        ("sharp", "choke_conv_5x5", sep_conv_weights(5, CHOKE)),
        ("sharp", "dil_choke_conv_3x3", sep_conv_weights(3, CHOKE)),
        ("darts", "conv_7x1_1x7", C_IN * 7 * C_OUT + C_OUT * 7 * C_OUT),
        ("darts", "nor_conv_5x5", C_IN * 25 * C_OUT),
        ("sharp", "max_pool_3x3", C_IN * C_OUT),
    ],
)
def test_number_of_weights(family: Family, name: str, weights: int) -> None:
    slot = Slot(C_IN, C_OUT, 1, affine=False, choke_channels=CHOKE)
    assert num_parameters(primitives.build(family, name, slot)) == weights


def test_dilation_reaches_two_pixels_and_only_in_the_first_stage() -> None:
    for family, name in (("darts", "dil_conv_3x3"), ("sharp", "dil_flood_conv_3x3")):
        operation = primitives.build(family, name, Slot(2, 2, 1, affine=False))  # type: ignore[arg-type]
        depthwise = [
            each
            for each in operation.modules()
            if isinstance(each, nn.Conv2d) and each.kernel_size == (3, 3)
        ]
        assert [each.dilation[0] for each in depthwise] == [2, 1][: len(depthwise)]


def test_average_pools_differ_in_how_they_count_the_padding() -> None:
    ones_nchw = torch.ones(1, 1, 4, 4)
    slot = Slot(1, 1, 1, affine=False)
    original = primitives.build("darts", "avg_pool_3x3", slot)(ones_nchw)
    sharp = primitives.build("sharp", "avg_pool_3x3", slot)(ones_nchw)
    assert original[0, 0, 0, 0] == 1
    assert sharp[0, 0, 0, 0] == pytest.approx(4 / 9)


def test_epsilon_of_the_norms_that_sharpdarts_adds() -> None:
    def epsilons(name: str) -> set[float]:
        operation = primitives.build("sharp", name, Slot(2, 4, 1, affine=True))
        return {each.eps for each in operation.modules() if isinstance(each, nn.BatchNorm2d)}

    assert epsilons("conv_7x1_1x7") == epsilons("avg_pool_3x3") == {1e-3}
    assert epsilons("sep_conv_3x3") == {1e-5}


def test_even_sizes_reduce_as_published() -> None:
    reduce = FactorizedReduce(3, 5, affine=False)
    x_nchw = torch.randn(2, 3, 6, 8)
    positive_nchw = functional.relu(x_nchw)
    halves_nchw = [reduce.even(positive_nchw), reduce.odd(positive_nchw[:, :, 1:, 1:])]
    torch.testing.assert_close(reduce(x_nchw), reduce.norm(torch.cat(halves_nchw, dim=1)))


def test_odd_sizes_reduce_with_one_zero_behind() -> None:
    reduce = FactorizedReduce(1, 2, affine=False).eval()
    nn.init.ones_(reduce.even.weight)
    nn.init.ones_(reduce.odd.weight)
    x_nchw = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    even, odd = reduce(x_nchw)[0] * (1 + reduce.norm.eps) ** 0.5
    torch.testing.assert_close(even, torch.tensor([[1.0, 3.0], [7.0, 9.0]]))
    torch.testing.assert_close(odd, torch.tensor([[5.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (4, 3), (1, 2)])
def test_a_reduction_is_what_its_layers_compute_one_after_the_other(size: tuple[int, int]) -> None:
    reduce = FactorizedReduce(3, 5, affine=True).double()
    x_nchw = torch.randn(4, 3, *size, dtype=torch.float64, requires_grad=True)
    layers = nn.Sequential(*reduce.equivalent_layers())
    expected_nchw, found_nchw = reduce(x_nchw), layers(x_nchw)
    torch.testing.assert_close(found_nchw, expected_nchw)
    weight_nchw = torch.randn_like(expected_nchw)
    inputs = [x_nchw, *reduce.parameters()]
    for one, other in zip(
        torch.autograd.grad(found_nchw, inputs, weight_nchw),
        torch.autograd.grad(expected_nchw, inputs, weight_nchw),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 5, 3, 2)])
def test_halves_of_pixels_have_gradients_twice(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PixelHalves(), x)
    assert torch.autograd.gradgradcheck(PixelHalves(), x)


def test_one_channel_cannot_be_reduced_in_halves() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        FactorizedReduce(4, 1, affine=False)


def test_an_unknown_name_lists_the_family() -> None:
    with pytest.raises(UnknownNameError, match=r"flood_conv_3x3.*known are: .*nor_conv_3x3"):
        primitives.build("darts", "flood_conv_3x3", Slot(2, 2, 1, affine=False))
