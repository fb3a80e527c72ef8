"""Weights that are put into one storage stay the parameters that they were."""

import copy

import pytest
import torch
from torch import nn

from search_core.relaxation import adjacent


@pytest.fixture
def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(4, 1, 3, 3)) for _ in range(3)]


def test_values_and_gradients_are_those_of_each(weights: list[nn.Parameter]) -> None:
    before = [each.detach().clone() for each in weights]
    adjacent.move_together(weights)
    assert adjacent.are_adjacent(weights)
    together = adjacent.view_of(weights)
    torch.testing.assert_close(together, torch.stack(before), rtol=0, atol=0)
    slopes = torch.randn_like(together)
    gradients = torch.autograd.grad(together, weights, slopes)
    torch.testing.assert_close(torch.stack(gradients), slopes, rtol=0, atol=0)


def test_a_weight_that_changes_changes_there(weights: list[nn.Parameter]) -> None:
    adjacent.move_together(weights)
    together = adjacent.view_of(weights)
    with torch.no_grad():
        weights[1].add_(1.0)
    assert torch.equal(together[1], weights[1])
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for each in weights:
        each.grad = torch.ones_like(each)
    optimizer.step()
    assert torch.equal(adjacent.view_of(weights), torch.stack(list(weights)))


@pytest.mark.parametrize("changed", [0, 2])
def test_one_that_changes_in_between_is_noticed(weights: list[nn.Parameter], changed: int) -> None:
    adjacent.move_together(weights)
    loss = adjacent.view_of(weights).square().sum()
    with torch.no_grad():
        weights[changed].add_(1.0)
    with pytest.raises(RuntimeError, match=r"modified (by an )?inplace"):
        torch.autograd.grad(loss, weights)


def test_what_was_moved_is_not_moved_again(weights: list[nn.Parameter]) -> None:
    other = nn.Parameter(torch.randn(4, 1, 3, 3))
    assert adjacent.can_be_moved([*weights, other])
    adjacent.move_together(weights)
    assert not adjacent.can_be_moved([*weights[:2], other])
    assert not adjacent.are_adjacent([weights[0], weights[2]])
    assert not adjacent.are_adjacent([*weights, other])


def test_one_that_comes_twice_is_not_moved(weights: list[nn.Parameter]) -> None:
    assert not adjacent.can_be_moved([weights[0], weights[0]])
    assert not adjacent.are_adjacent([weights[0], weights[0]])


def test_a_copy_of_a_network_has_weights_of_its_own(weights: list[nn.Parameter]) -> None:
    network = nn.ParameterList(weights)
    adjacent.move_together(list(network))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].add_(1.0)
    assert not torch.equal(other[0], network[0])
    restored = nn.ParameterList(nn.Parameter(torch.zeros(4, 1, 3, 3)) for _ in range(3))
    restored.load_state_dict(network.state_dict())
    assert torch.equal(torch.stack(list(restored)), torch.stack(list(network)))


def test_on_a_cpu_they_are_copied(weights: list[nn.Parameter]) -> None:
    adjacent.beside(weights)
    assert not adjacent.are_adjacent(weights)
