"""What a forward pass keeps for the weights' gradients on a GPU, counted without one.

    python -m benchmarks.kept_memory --space darts

makes a forward pass of the plain form and of the grouped one, whose kernels are left out: their
results have their sizes and no values. Most of a step's peak is what is kept at its middle.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.steps import SPACES, space_of
from search_core import weighting
from search_core.orders import frozen
from search_core.randomness import stream
from search_core.relaxation import GroupedPlan
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec

_KERNELS: Final = {
    "depthwise": ("_slide", "_spread", "_weigh"),
    "mixing": ("_mix", "_part", "_compare"),
    "normalisation": ("_measure", "_conclude", "_apply", "_measure_backward", "_apply_backward"),
    "parts": ("_total",),
    "pointwise": ("_product", "_product_of_weight"),
    "pooling": ("_pool", "_pool_backward"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the count.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    options = _parse(arguments)
    spec = SearchSpec.model_validate({"space": space_of(options), "dataset": {"name": "synthetic"}})
    network = build_supernet(
        spec.space,
        (3, options.size, options.size),
        10,
        weighting=weighting.from_spec(spec.algorithm),
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    images_nchw = torch.zeros(options.batch, 3, options.size, options.size)
    plain = kept(network, images_nchw, [])
    with _left_out():
        network.plan(GroupedPlan)
        fast = kept(network, images_nchw, network.architecture_parameters())
    print("| space | plain, MiB | grouped, MiB | of the plain |")
    print("| --- | --- | --- | --- |")
    mib = 2**20
    print(f"| `{options.space}` | {plain / mib:.0f} | {fast / mib:.0f} | {fast / plain:.2f} |")
    return 0


def kept(network: nn.Module, images_nchw: Tensor, fixed: Sequence[nn.Parameter]) -> int:
    """Bytes that a forward pass keeps, parameters apart.

    Args:
        network: In training mode.
        images_nchw: A batch.
        fixed: Parameters without gradients.
    """
    known = {each.untyped_storage().data_ptr() for each in network.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with frozen(fixed), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = network(images_nchw)  # which holds what is kept
    assert result.requires_grad
    return sum(found.values())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kept_memory", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--space", choices=list(SPACES), default="darts")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--channels", type=int, default=16, help="of the cell spaces")
    parser.add_argument("--cells", type=int, default=8, help="of the cell spaces")
    parser.add_argument("--nodes", type=int, default=4, help="of the cell spaces")
    return parser.parse_args(arguments)


class _NoKernel:
    def __getitem__(self, grid: object) -> Any:
        return lambda *_, **__: None


@contextmanager
def _left_out() -> Iterator[None]:
    """Plans as on a GPU, whose kernels are not called."""
    fused = import_module("search_core.relaxation.fused")
    patches: list[Any] = [
        mock.patch.object(import_module(f"{fused.__name__}.{module}"), kernel, _NoKernel())
        for module, kernels in _KERNELS.items()
        for kernel in kernels
    ]
    patches += [
        mock.patch(f"search_core.relaxation.{module}.arithmetic_for", return_value=fused)
        for module in ("grouped", "sharing")
    ]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


if __name__ == "__main__":
    sys.exit(main())
