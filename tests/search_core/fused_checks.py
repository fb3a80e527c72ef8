"""What the tests of the GPU's kernels compare with, and how exactly."""

import torch
from torch import Tensor

from search_core.randomness import stream

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = torch.float64 if DEVICE.type == "cpu" else torch.float32
TOLERANCE = 1e-10 if DEVICE.type == "cpu" else 1e-5


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
