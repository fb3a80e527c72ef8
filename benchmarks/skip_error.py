"""What a HyperCuboid's `skip_below` costs in exactness, and what it saves.

    python -m benchmarks.skip_error

searches a cuboid on digits, and then computes the same validation batch with all operations and
without those below each threshold: how many are skipped, the relative error of the logits and of
the alphas' gradient, and the time of a forward and backward pass as a share of the exact one's.
Times are medians of passes taken in turn.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from search_core import data
from search_core.cuboid_supernet import CuboidSupernet, Mixture
from search_core.data import LabelledImages
from search_core.search import SearchRun
from search_core.spec import SearchSpec

_THRESHOLDS: Final = (0.01, 0.03, 0.06, 0.1)
_IMAGES: Final = 256

_SPEC: Final[dict[str, Any]] = {
    "space": {
        "kind": "hypercuboid",
        "axes": {"channels": [8, 16, 24], "kernel_size": [3, 5]},
        "levels": 2,
        "final_channels": 32,
    },
    # Only the plain form skips.
    "algorithm": {"architecture_learning_rate": 0.1, "relaxation": "plain"},
    "training": {"batch_size": 64, "learning_rate": 0.1},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.skip_error", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--epochs", type=int, default=12, help="of the search")
    parser.add_argument("--passes", type=int, default=9, help="timed for each threshold")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    spec = SearchSpec.model_validate(
        {**_SPEC, "training": {**_SPEC["training"], "epochs": options.epochs}}
    )
    run = SearchRun(spec, 0)
    while not run.finished:
        run.run_epoch()
    assert isinstance(run.network, CuboidSupernet)
    test = data.load(spec.dataset, data.DEFAULT_DATA_ROOT, num_workers=0).test
    batch = next(iter(test.in_order(_IMAGES)))
    print(table(run.network, batch, options.passes))
    return 0


def table(network: CuboidSupernet, batch: LabelledImages, passes: int) -> str:
    """The comparison as a Markdown table.

    Args:
        network: After a search.
        batch: What is computed.
        passes: Timed for each threshold.
    """
    network.train()
    exact_logits, exact_gradient, _ = _pass(network, batch, 0.0)
    lines = [
        "| skip below | operations left out | error of the logits | of alphas' gradient | time |",
        "| --- | --- | --- | --- | --- |",
    ]
    for threshold in _THRESHOLDS:
        logits, gradient, _ = _pass(network, batch, threshold)
        pairs = [
            (_pass(network, batch, 0.0)[2], _pass(network, batch, threshold)[2])
            for _ in range(passes)
        ]
        ratio = median(fast / exact for exact, fast in pairs)
        lines.append(
            f"| {threshold:g} | {100 * _skipped(network, threshold):.0f} % "
            f"| {_error(logits, exact_logits):.1e} | {_error(gradient, exact_gradient):.1e} "
            f"| {ratio:.2f} |"
        )
    return "\n".join(lines)


def _pass(
    network: CuboidSupernet, batch: LabelledImages, threshold: float
) -> tuple[Tensor, Tensor, float]:
    """Logits, the alphas' gradient, and the seconds that a pass with all gradients takes."""
    for mixture in _mixtures(network):
        mixture.skip_below = threshold
    parameters = list(network.parameters())
    started = time.perf_counter()
    logits_nk = network(batch.images_nchw)
    loss = functional.cross_entropy(logits_nk, batch.labels_n)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    seconds = time.perf_counter() - started
    of_alphas = gradients[[id(each) for each in parameters].index(id(network.alpha))]
    return logits_nk.detach(), of_alphas, seconds


def _skipped(network: CuboidSupernet, threshold: float) -> float:
    """The share of all operations that is skipped."""
    multipliers_po = network.weighting(network.architecture_weights()["cuboid"])
    skipped = 0
    for mixture, multipliers_o in zip(_mixtures(network), multipliers_po, strict=True):
        mixture.skip_below = threshold
        skipped += len(mixture.skipped(multipliers_o))
    return skipped / multipliers_po.numel()


def _mixtures(network: CuboidSupernet) -> list[Mixture]:
    return [module for module in network.modules() if isinstance(module, Mixture)]


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


if __name__ == "__main__":
    sys.exit(main())
