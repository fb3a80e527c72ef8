"""Multipliers go to plans, and to parts of plans, in the order in which these want them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from search_core.relaxation import Multipliers
from search_core.relaxation.portions import Portions, Wanted


@pytest.fixture
def multipliers_k() -> Tensor:
    return torch.arange(6.0, requires_grad=True)


def test_each_plan_gets_its_own(multipliers_k: Tensor) -> None:
    plans: Any = [
        SimpleNamespace(order=[5, 0]),
        SimpleNamespace(order=[2]),
        SimpleNamespace(order=[]),
    ]
    parts = Multipliers(plans).of(multipliers_k)
    assert [part.tolist() for part in parts] == [[5.0, 0.0], [2.0], []]
    (gradient,) = torch.autograd.grad(parts[0].sum() + 3 * parts[1].sum(), multipliers_k)
    assert gradient.tolist() == [1, 0, 3, 0, 0, 1]


def test_portions_are_parts_and_their_gradients_come_together(multipliers_k: Tensor) -> None:
    wanted, parts = Wanted(), ([0, 1], [3, 4, 2], [5], [4, 2], [1, 2, 3])
    for _ in range(3):
        portions = Portions(multipliers_k, wanted)
        found = [portions.of(indices) for indices in parts]
        assert [part.tolist() for part in found] == [[float(i) for i in each] for each in parts]
        assert found[1] is portions.of(parts[1])
        total = cast("Tensor", sum((i + 1) * part.sum() for i, part in enumerate(found)))
        (gradient,) = torch.autograd.grad(total, multipliers_k)
        assert gradient.tolist() == [1, 6, 11, 7, 6, 3]
    assert {type(part.grad_fn).__name__ for part in found} == {"SplitWithSizesBackward0"}


def test_parts_that_lie_in_order_are_not_moved(multipliers_k: Tensor) -> None:
    wanted = Wanted()
    for _ in range(2):
        portions = Portions(multipliers_k, wanted)
        found = [portions.of(indices) for indices in ([0, 1], [2, 3, 4, 5])]
    assert [part.data_ptr() - multipliers_k.data_ptr() for part in found] == [0, 8]
