"""How a GPU reads a state, rectified and pooled, against PyTorch's modules."""

from typing import Any

import pytest
import torch
from torch import nn

from search_core.relaxation.torch_arithmetic import TorchArithmetic
from tests.search_core.fused_checks import apart, check, draw

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
