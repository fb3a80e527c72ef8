import pytest
import torch

from search_core import weighting
from search_core.spec import AlgorithmSpec
from search_core.weighting import max_w, scalar


def test_scalar_weights_are_the_multipliers() -> None:
    weights = torch.tensor([[0.2, 0.5, 0.3]])
    torch.testing.assert_close(scalar(weights), weights)


def test_max_w_multiplies_the_heaviest_by_one() -> None:
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.06, 0.04]])
    expected = torch.tensor([[0.7, 1.0, 0.8], [1.0, 0.16, 0.14]])
    torch.testing.assert_close(max_w(weights), expected)


@pytest.mark.parametrize("heaviest", range(4))
def test_max_w_trains_the_heaviest_against_all_others(heaviest: int) -> None:
    generator = torch.Generator().manual_seed(heaviest)
    outputs_kd = torch.randn((4, 5), generator=generator, dtype=torch.float64)
    upstream_d = torch.randn(5, generator=generator, dtype=torch.float64)
    weights_k = torch.full((4,), 0.2, dtype=torch.float64)
    weights_k[heaviest] = 0.4
    weights_k.requires_grad_()
    loss = upstream_d @ (max_w(weights_k) @ outputs_kd)
    (gradient_k,) = torch.autograd.grad(loss, weights_k)
    own_k = outputs_kd @ upstream_d
    expected_k = own_k.clone()
    expected_k[heaviest] = -(own_k.sum() - own_k[heaviest])
    torch.testing.assert_close(gradient_k, expected_k)


def test_detached_max_trains_each_by_its_own_output() -> None:
    weights_k = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    own_k = torch.tensor([1.0, 2.0, 3.0])
    loss = max_w(weights_k, detach_max=True) @ own_k
    (gradient_k,) = torch.autograd.grad(loss, weights_k)
    torch.testing.assert_close(gradient_k, own_k)


def test_of_two_equal_maxima_one_takes_the_gradient() -> None:
    weights_k = torch.tensor([0.5, 0.5], requires_grad=True)
    loss = max_w(weights_k) @ torch.tensor([1.0, 10.0])
    (gradient_k,) = torch.autograd.grad(loss, weights_k)
    assert sorted(gradient_k.tolist()) in ([-10.0, 10.0], [-1.0, 1.0])


def test_the_spec_chooses() -> None:
    weights = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    assert weighting.from_spec(AlgorithmSpec()) is scalar
    attached = weighting.from_spec(AlgorithmSpec(weighting="max_w"))(weights)
    detached = weighting.from_spec(AlgorithmSpec(weighting="max_w", detach_max=True))(weights)
    assert torch.equal(attached, detached)
    (gradient,) = torch.autograd.grad(attached.sum(), weights)
    assert gradient.tolist() == [1, -2, 1]
    (gradient,) = torch.autograd.grad(detached.sum(), weights)
    assert gradient.tolist() == [1, 1, 1]
