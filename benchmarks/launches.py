"""How many kernels a planned network launches on a GPU, counted without one.

    python -m benchmarks.launches --space darts

counts those of the alphas' half of a first-order step, of the weights' half, and of the evaluation
of a batch: our own kernels, which are left out, and PyTorch's operations that are no views. Steps
of the optimizers are not among them. `--by-name` prints the commonest.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.steps import add_network_options, network_of
from benchmarks.without_kernels import left_out
from search_core.bilevel import batch_norms, statistics_kept
from search_core.orders import frozen
from search_core.relaxation import GroupedPlan
from search_core.supernet import Supernet

_FREE = frozenset(("empty", "empty_like", "new_empty", "empty_strided", "promote_types", "detach"))
"""Operations that launch nothing, though they are no views."""


class _Calls(TorchDispatchMode):
    def __init__(self, called: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._called = called

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if not func.is_view and name not in _FREE and not name.endswith("_unsafe_view"):
            self._called(name)
        return func(*args, **(kwargs or {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the count.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    options = parse(arguments)
    counts = launches(options)
    print("| space | precision | alphas | weights | evaluation of a batch |")
    print("| --- | --- | --- | --- | --- |")
    totals = " | ".join(f"{sum(found.values()):,}" for found in counts.values())
    print(f"| `{options.space}` | {options.precision} | {totals} |")
    if options.by_name:
        for what, found in counts.items():
            print(f"\n{what}")
            for name, count in found.most_common(20):
                print(f"{count:6} {name}")
    return 0


def launches(options: argparse.Namespace) -> dict[str, Counter[str]]:
    """The kernels of each part by their names.

    Args:
        options: The command line's.
    """
    network = network_of(options)
    images_nchw = torch.zeros(2, 3, options.size, options.size)
    found: Counter[str] = Counter()

    def count(name: str) -> None:
        found[name] += 1

    counts: dict[str, Counter[str]] = {}
    cast = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16")
    with left_out(count), cast:
        network.plan(GroupedPlan)
        for is_warm in (False, True):  # what belongs together is brought there at first
            for what, part in (("alphas", _alphas), ("weights", _weights), ("evaluation", _look)):
                found.clear()
                with _Calls(count) if is_warm else nullcontext():
                    part(network, images_nchw)
                counts[what] = Counter(found)
    return counts


def _alphas(network: Supernet, images_nchw: Tensor) -> None:
    with frozen(network.weight_parameters()), statistics_kept(batch_norms(network)):
        torch.autograd.grad(_loss(network, images_nchw), network.architecture_parameters())


def _weights(network: Supernet, images_nchw: Tensor) -> None:
    with frozen(network.architecture_parameters()):
        torch.autograd.grad(_loss(network, images_nchw), network.weight_parameters())


@torch.no_grad()
def _look(network: Supernet, images_nchw: Tensor) -> None:
    network.eval()
    _loss(network, images_nchw)
    network.train()


def _loss(network: Supernet, images_nchw: Tensor) -> Tensor:
    labels_n = torch.zeros(len(images_nchw), dtype=torch.int64)
    return functional.cross_entropy(network(images_nchw).float(), labels_n)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line.

    Args:
        arguments: The command line; None takes this process's.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.launches", description=(__doc__ or "").partition("\n")[0]
    )
    add_network_options(parser)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--by-name", action="store_true", help="print the commonest, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
