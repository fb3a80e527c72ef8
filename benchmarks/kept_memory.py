"""What a forward pass keeps for the weights' gradients on a GPU, counted without one.

    python -m benchmarks.kept_memory --space darts

makes a forward pass of the plain form and of the grouped one, whose kernels are left out: their
results have their sizes and no values. Most of a step's peak is what is kept at its middle.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.steps import add_network_options, network_of
from benchmarks.without_kernels import left_out
from search_core.orders import frozen
from search_core.relaxation import GroupedPlan


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the count.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    options = _parse(arguments)
    network = network_of(options)
    images_nchw = torch.zeros(options.batch, 3, options.size, options.size)
    plain = kept(network, images_nchw, [])
    with left_out():
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
    add_network_options(parser)
    parser.add_argument("--batch", type=int, default=8)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
