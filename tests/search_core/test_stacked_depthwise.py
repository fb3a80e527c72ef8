"""Depthwise convolutions of stacks, and what they are made of."""

import pytest
import torch

from search_core.randomness import stream
from search_core.stacking.depthwise import convolve
from search_core.stacking.depthwise_form import Depthwise
from search_core.stacking.phases import from_phases, to_phases


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_gradients_of_wide_kernels(kernel: int, stride: int) -> None:
    generator = stream(0, "wide")
    x_nchw = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, generator=generator)
    x_nchw.requires_grad_()
    weight.requires_grad_()
    form = Depthwise(stride, kernel // 2)
    y_nchw = form.forward(x_nchw, weight)
    d_nchw = torch.randn(y_nchw.shape, dtype=torch.float64, generator=generator)
    of_x, of_weight = torch.autograd.grad(y_nchw, (x_nchw, weight), d_nchw)
    torch.testing.assert_close(form.of_input(d_nchw, x_nchw, weight), of_x)
    torch.testing.assert_close(form.of_weight(d_nchw, x_nchw, weight), of_weight)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("d", [2, 3])
def test_a_dilated_convolution_is_undilated_ones_of_phases(d: int, stride: int) -> None:
    x_nchw = torch.randn(2, 3, 12, 6, dtype=torch.float64, generator=stream(0, "x"))
    assert torch.equal(from_phases(to_phases(x_nchw, d), d), x_nchw)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, generator=stream(0, "w"))
    form = Depthwise(stride, d, d)
    torch.testing.assert_close(convolve(x_nchw, weight, form), form.forward(x_nchw, weight))
