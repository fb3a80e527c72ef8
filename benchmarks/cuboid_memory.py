"""How good the estimate of a HyperCuboid's training memory is.

Each cuboid is searched for one epoch in a process of its own, on the CPU with one thread. What the
process held at its peak, less what it held once everything was imported, stands beside the estimate
that a submission is judged by (`search_core.cuboid_size.searched_size`).

    python -m benchmarks.cuboid_memory

prints a Markdown table. It takes five to ten minutes and 5 GB of memory.
"""

import argparse
import json
import subprocess
import sys
from typing import Any, Final

import psutil
import torch

from search_core.cuboid_size import searched_size
from search_core.pace import peak_memory
from search_core.search import SearchRun
from search_core.spec import SearchSpec

_MIB: Final = 2**20

CASES: Final[dict[str, dict[str, Any]]] = {
    "the paper's, batch 16": {
        "space": {},
        "image_shape": (3, 32, 32),
        "batch_size": 16,
    },
    "the paper's, batch 16, second order": {
        "space": {},
        "image_shape": (3, 32, 32),
        "batch_size": 16,
        "algorithm": {"order": "second"},
    },
    "the paper's, batch 64, one path at a time": {
        "space": {},
        "image_shape": (3, 32, 32),
        "batch_size": 64,
        "algorithm": {"sampling": {}},
    },
    "channels 16, 32, one level, batch 64": {
        "space": {"axes": {"channels": [16, 32]}, "levels": 1, "final_channels": 64},
        "image_shape": (3, 32, 32),
        "batch_size": 64,
    },
    "channels 16, 32, two levels, kernels 3, 5, batch 64": {
        "space": {
            "axes": {"channels": [16, 32], "kernel_size": [3, 5]},
            "levels": 2,
            "final_channels": 64,
        },
        "image_shape": (3, 32, 32),
        "batch_size": 64,
    },
    "the same, second order": {
        "space": {
            "axes": {"channels": [16, 32], "kernel_size": [3, 5]},
            "levels": 2,
            "final_channels": 64,
        },
        "image_shape": (3, 32, 32),
        "batch_size": 64,
        "algorithm": {"order": "second"},
    },
    "wide: channels 256, 512, batch 8": {
        "space": {"axes": {"channels": [256, 512]}, "levels": 2},
        "image_shape": (3, 16, 16),
        "batch_size": 8,
    },
    "five activations and three normalisations, batch 32": {
        "space": {
            "axes": {
                "channels": [16, 32],
                "operation": ["conv", "skip_connect", "resizable_avg_pool"],
                "activation": ["relu", "leaky_relu", "silu", "hardswish", "gelu"],
                "normalisation": ["batch", "group", "layer"],
            },
            "levels": 1,
            "final_channels": 64,
        },
        "image_shape": (3, 32, 32),
        "batch_size": 32,
    },
    "small images: channels 8, 16, two levels, 8x8, batch 64": {
        "space": {"axes": {"channels": [8, 16]}, "levels": 2, "final_channels": 32},
        "image_shape": (1, 8, 8),
        "batch_size": 64,
    },
}
"""Cuboids by what the table calls them."""


def spec_of(case: dict[str, Any]) -> SearchSpec:
    """The search of a case: an epoch of two steps, and two batches to measure on."""
    batch = case["batch_size"]
    return SearchSpec.model_validate(
        {
            "space": {"kind": "hypercuboid", **case["space"]},
            "dataset": {
                "name": "synthetic",
                "num_train": 6 * batch,
                "train_portion": 1 / 3,
                "image_shape": case["image_shape"],
            },
            # The form that takes the most: an estimate is to hold for both.
            "algorithm": {"relaxation": "plain", **case.get("algorithm", {})},
            "training": {"epochs": 1, "batch_size": batch},
        }
    )


def measure(case: dict[str, Any]) -> int:
    """Searches an epoch in this process.

    Returns:
        Bytes at the peak, less those before.
    """
    torch.set_num_threads(1)
    before = psutil.Process().memory_info().rss
    SearchRun(spec_of(case), 0).run_epoch()
    return peak_memory(torch.device("cpu")) - int(before)


def estimate(case: dict[str, Any]) -> int:
    """Bytes that the size of a case's cuboid names."""
    size = searched_size(spec_of(case))
    assert size is not None
    return size.training_bytes


def main() -> int:
    """Prints the table, or with `--case` the bytes of one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="measure only this one, in this process")
    wanted = parser.parse_args().case
    if wanted is not None:
        print(json.dumps(measure(CASES[wanted])))
        return 0
    print("| cuboid | measured, MiB | estimated, MiB | estimated / measured |\n|---|---|---|---|")
    for name, case in CASES.items():
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cuboid_memory", "--case", name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        measured, estimated = json.loads(done.stdout), estimate(case)
        print(
            f"| {name} | {measured / _MIB:,.0f} | {estimated / _MIB:,.0f} | "
            f"{estimated / measured:.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
