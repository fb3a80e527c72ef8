"""What `docs/performance.md` has to say of a GPU, in one go.

    python -m benchmarks.gpu_table

runs `benchmarks.search_step` for each space, order and precision, every one in a process of its
own, then a whole first-order search of 50 epochs on images of CIFAR-10's number and size, fast and
in both precisions. It prints two Markdown tables under the machine's name.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from benchmarks.steps import machine
from search_core.search import SearchRun
from search_core.spec import SearchSpec

ROWS: Final = (
    ("darts", "first", "float32"),
    ("darts", "first", "bfloat16"),
    ("darts", "second", "float32"),
    ("darts", "second", "bfloat16"),
    ("sharp_darts", "first", "float32"),
    ("sharp_darts", "first", "bfloat16"),
    ("sharper_darts", "first", "float32"),
    ("sharper_darts", "first", "bfloat16"),
    ("hypercuboid", "first", "float32"),
    ("hypercuboid", "first", "bfloat16"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all of it.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    options = _parse(arguments)
    found = machine(options.device)
    print(f"{found['machine']}, PyTorch {found['torch']}, batch {options.batch}\n")
    print(
        "| space | order | precision | plain, s | fast, s | times as fast | memory, of the plain |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for row in ROWS[: options.rows]:
        print(_row(*row, options), flush=True)
    if not options.epochs:
        return 0
    print("\n| precision | epochs | an epoch, s | the search, min | accuracy |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for precision in options.precisions:
        print(_search(precision, options), flush=True)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_table",
        description=(__doc__ or "").partition("\n")[0],
        epilog="What follows -- goes to benchmarks.search_step, such as -- --size 8.",
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each form")
    parser.add_argument("--rows", type=int, default=len(ROWS), help="of the first table")
    parser.add_argument("--epochs", type=int, default=50, help="of the whole search; 0: none")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=["float32", "bfloat16"],
        default=["float32", "bfloat16"],
        help="of the whole search",
    )
    parser.add_argument("--images", type=int, default=50_000, help="of the whole search")
    parser.add_argument("--channels", type=int, default=16, help="of the whole search")
    parser.add_argument("--cells", type=int, default=8, help="of the whole search")
    parser.add_argument("step", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _row(space: str, order: str, precision: str, options: argparse.Namespace) -> str:
    command = [sys.executable, "-m", "benchmarks.search_step", "--json"]
    for name, value in (
        ("space", space),
        ("order", order),
        ("dtype", precision),
        ("device", options.device),
        ("batch", options.batch),
        ("repeats", options.repeats),
    ):
        command += [f"--{name}", str(value)]
    said = subprocess.run([*command, *options.step], capture_output=True, text=True, check=False)
    if said.returncode:
        # A form that does not fit leaves its row, and the others are measured.
        reason = (said.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return f"| `{space}` | {order} | {precision} | {reason} | | | |"
    found: dict[str, Any] = json.loads(said.stdout)
    # The second form is the plan, under whichever name.
    plain, fast = (
        timing["step"] for timing in found.values() if isinstance(timing, dict) and "step" in timing
    )
    return (
        f"| `{space}` | {order} | {precision} | {_spread(plain)} | {_spread(fast)} | "
        f"{found['ratio']:.2f} | {found['memory_ratio']:.2f} |"
    )


def _search(precision: str, options: argparse.Namespace) -> str:
    spec = SearchSpec.model_validate(
        {
            "space": {"kind": "darts", "channels": options.channels, "cells": options.cells},
            "dataset": {
                "name": "synthetic",
                "num_train": options.images,
                "image_shape": [3, 32, 32],
            },
            "augmentation": {"crop_padding": 4, "horizontal_flip": True, "cutout": 16},
            "algorithm": {"relaxation": "fast"},
            "training": {
                "epochs": options.epochs,
                "batch_size": options.batch,
                "precision": precision,
            },
        }
    )
    started = time.perf_counter()
    run = SearchRun(spec, 0, device=options.device)
    seconds = []
    while not run.finished:
        before = time.perf_counter()
        report = run.run_epoch()
        seconds.append(time.perf_counter() - before)
        print(f"epoch {run.epoch} took {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
        for warning in report.warnings:
            print(f"{warning.kind}: {warning.message}", file=sys.stderr)
    minutes = (time.perf_counter() - started) / 60
    accuracy = report.metrics["validation_accuracy"]
    # The first one captures the step, and may compile kernels.
    epoch = median(seconds[1:] or seconds)
    return f"| {precision} | {options.epochs} | {epoch:.2f} | {minutes:.2f} | {accuracy:.4f} |"


def _spread(summary: Sequence[float]) -> str:
    middle, lowest, highest = summary
    return f"{middle:.4f} ({lowest:.4f} to {highest:.4f})"


if __name__ == "__main__":
    sys.exit(main())
