"""Searches against a grid that was trained whole.

    python -m benchmarks.ground_truth

trains all 128 paths of a small HyperCuboid with three seeds, on digits and on synthetic images;
then it searches the same cuboid in every way of `searches.VARIANTS`, and prints for each data set
how well the searches' scores rank the paths, what the chosen path loses against the best, and what
a search costs in CPU time as a share of the whole grid with one seed. The test images, which the
ground truth is measured on, choose nothing: a search sees the training images only.

The grid takes most of the time; `--save FILE` keeps it and `--grid FILE` starts from it.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.ground_truth import grids, report, searches
from benchmarks.ground_truth.grids import GridPoint
from benchmarks.ground_truth.searches import SearchOutcome

_T = TypeVar("_T")

_TIMED_EVERY = 7
"""Of the paths, for the cost of the grid; no divisor of the number of choices."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    started = time.perf_counter()
    # Spawned: a forked process would inherit whatever threads PyTorch has started here.
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        grid = _read(options.grid) if options.grid else _train(pool, options)
        if options.save:
            options.save.write_text(json.dumps(_plain(grid)))
        found, timed = _search(pool, options)
    minutes = (time.perf_counter() - started) / 60
    command = shlex.join(["python", "-m", "benchmarks.ground_truth", *given])
    if options.json:
        document = {
            "command": command,
            "minutes": round(minutes, 1),
            "torch": torch.__version__,
            "grid": _plain(grid),
            "searches": {
                name: [asdict(outcome) for outcome in outcomes] for name, outcomes in found.items()
            },
        }
        print(json.dumps(document))
        return 0
    for dataset in options.datasets:
        truth = report.summarise(grid[dataset], timed[dataset])
        print(f"\n## {dataset}\n")
        print(
            f"{len(truth.accuracy)} paths: the highest mean over the seeds is "
            f"{100 * truth.highest:.2f} %; a path that is best by the other seeds has "
            f"{100 * truth.best:.2f} % with the one left out; a random one has "
            f"{100 * truth.mean:.2f} %. One path's seeds differ by "
            f"{100 * truth.deviation:.2f} points (standard deviation). The grid takes "
            f"{truth.seconds:.0f} CPU seconds a seed.\n"
        )
        print(report.table(truth, report.rows(truth, found[dataset])))
    print(
        f"\nMade by `{command}` in {minutes:.0f} minutes with {options.processes} processes, "
        f"PyTorch {torch.__version__}."
    )
    return 0


def _parse(arguments: list[str]) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ground_truth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--datasets", nargs="+", choices=list(grids.DATASETS), default=list(grids.DATASETS)
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each path")
    parser.add_argument("--epochs", type=int, default=15, help="of each training")
    parser.add_argument("--every", type=int, default=1, help="train each n-th path only")
    parser.add_argument("--searches", type=int, default=3, help="seeds of each search")
    parser.add_argument(
        "--variants", nargs="*", choices=list(searches.VARIANTS), default=list(searches.VARIANTS)
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=Path, help="where to keep the trained grid")
    parser.add_argument("--grid", type=Path, help="a grid that --save kept, in place of training")
    parser.add_argument("--json", action="store_true", help="every outcome, for programs")
    options = parser.parse_args(arguments)
    for name in ("seeds", "epochs", "every", "searches", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def _train(pool: ProcessPoolExecutor, options: Any) -> dict[str, list[GridPoint]]:
    futures = {
        dataset: [
            pool.submit(grids.train, dataset, path, range(options.seeds), options.epochs)
            for path in grids.paths(grids.space())[:: options.every]
        ]
        for dataset in options.datasets
    }
    return {name: _results(f"paths of {name}", each) for name, each in futures.items()}


def _search(
    pool: ProcessPoolExecutor, options: Any
) -> tuple[dict[str, list[SearchOutcome]], dict[str, list[GridPoint]]]:
    """Searches, and trains some paths in turn with them, for the ratio of their costs."""
    sample = grids.paths(grids.space())[::_TIMED_EVERY]
    runs: dict[str, list[Future[SearchOutcome]]] = {}
    timings: dict[str, list[Future[GridPoint]]] = {}
    for dataset in options.datasets:
        waiting = list(sample)
        runs[dataset], timings[dataset] = [], []
        for name in options.variants:
            for seed in range(options.searches):
                runs[dataset].append(pool.submit(searches.search, name, dataset, seed))
                if waiting:
                    path = waiting.pop()
                    timings[dataset].append(
                        pool.submit(grids.train, dataset, path, range(1), options.epochs)
                    )
        timings[dataset] += [
            pool.submit(grids.train, dataset, path, range(1), options.epochs) for path in waiting
        ]
    return (
        {name: _results(f"searches on {name}", each) for name, each in runs.items()},
        {name: _results(f"timed paths of {name}", each) for name, each in timings.items()},
    )


def _results(what: str, futures: list[Future[_T]]) -> list[_T]:
    for done, _ in enumerate(as_completed(futures), start=1):
        if done % 16 == 0 or done == len(futures):
            print(f"{done}/{len(futures)} {what}", file=sys.stderr)
    return [future.result() for future in futures]


def _plain(grid: dict[str, list[GridPoint]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [asdict(point) for point in points] for name, points in grid.items()}


def _read(file: Path) -> dict[str, list[GridPoint]]:
    return {
        name: [
            GridPoint(tuple(point["path"]), point["accuracies"], point["seconds"])
            for point in points
        ]
        for name, points in json.loads(file.read_text()).items()
    }


if __name__ == "__main__":
    sys.exit(main())
