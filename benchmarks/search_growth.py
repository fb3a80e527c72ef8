"""What a fast search step costs as a network grows.

    python -m benchmarks.search_growth

changes one setting of the published `darts` configuration at a time, and prints the seconds of a
first-order step in the fast form.
"""

import argparse
import sys
from collections.abc import Sequence
from statistics import median
from typing import Final

import torch

from benchmarks.search_step import Stepper, parse

_PRIMITIVES: Final = (
    ("sep_conv_3x3",),
    ("sep_conv_3x3", "sep_conv_5x5"),
    ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
)

_CHANGES: Final[dict[str, list[list[str]]]] = {
    "channels": [["--channels", str(value)] for value in (8, 16, 32, 64)],
    "cells": [["--cells", str(value)] for value in (4, 8, 16)],
    "nodes": [["--nodes", str(value)] for value in (2, 4, 6)],
    "primitives": [["--primitives", *names] for names in _PRIMITIVES],
    "batch": [["--batch", str(value)] for value in (8, 16, 32, 64)],
    "size": [["--size", str(value)] for value in (16, 32, 64)],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_growth",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    print("| setting | value | seconds of a step |\n| --- | --- | --- |")
    for setting, changes in _CHANGES.items():
        for change in changes:
            value = ", ".join(change[1:])
            print(f"| {setting} | {value} | {_seconds(change, options.repeats):.2f} |", flush=True)
    return 0


def _seconds(change: Sequence[str], repeats: int) -> float:
    stepper = Stepper("fast", parse(change))
    stepper.warm_up()
    return median(sum(stepper()) for _ in range(repeats))


if __name__ == "__main__":
    sys.exit(main())
