"""What a search on digits is worth: derived architectures against random ones of the same space.

Every architecture is retrained by the same recipe (`retrain-digits`) with the same seeds; searched
ones come from the `digits-quick` search, first order, with either weighting. A random one comes
from random weights by the same derivation. The test images choose nothing.

    python -m benchmarks.digits_numerics --seeds 3

prints a Markdown table. On two cores it takes about ten minutes: one process for each core.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from statistics import fmean, stdev
from typing import Any, Literal

import torch

from search_core import derive
from search_core.genotype import CellGenotype
from search_core.profile import profile
from search_core.randomness import stream
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from search_core.spec.spaces import CellSpace
from search_core.training import TrainingRun
from search_core.training_setup import build_network

Source = Literal["scalar", "max_w", "random"]

_LABELS: dict[Source, str] = {
    "scalar": "searched, scalar weighting",
    "max_w": "searched, Max-W weighting",
    "random": "random",
}


@dataclass(frozen=True)
class Plan:
    """One architecture to be found and retrained.

    Attributes:
        source: Where it comes from.
        seed: Of the search, or of the random weights.
        retrainings: How often it is retrained, with seeds from 0.
        search_epochs: Epochs of the search; None as in the preset.
        retraining_epochs: Epochs of a retraining; None as in the preset.
    """

    source: Source
    seed: int
    retrainings: int
    search_epochs: int | None
    retraining_epochs: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of a plan. Accuracies are fractions.

    Attributes:
        source: Where the architecture comes from.
        seed: Its seed.
        genotype: The architecture, in the published text form.
        parameters: Of the retrained network.
        supernet_accuracy: Validation accuracy of the supernet after the search; None for a random
            architecture.
        last_accuracies: Test accuracy after the last epoch, one for each retraining.
        best_accuracies: That of the epoch with the best validation accuracy.
    """

    source: Source
    seed: int
    genotype: str
    parameters: int
    supernet_accuracy: float | None
    last_accuracies: list[float]
    best_accuracies: list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    plans = [
        Plan(source, seed, options.retrainings, options.search_epochs, options.retraining_epochs)
        for source in ("scalar", "max_w", "random")
        for seed in range(options.random if source == "random" else options.seeds)
    ]
    started = time.perf_counter()
    outcomes = _run_all(plans, options.processes)
    seconds = time.perf_counter() - started
    command = shlex.join(["python", "-m", "benchmarks.digits_numerics", *given])
    if options.json:
        document = {
            "command": command,
            "seconds": round(seconds, 1),
            "processes": options.processes,
            "torch": torch.__version__,
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        print(json.dumps(document, indent=2))
    else:
        print(table(outcomes))
        print(
            f"\nMade by `{command}` in {seconds / 60:.1f} minutes with {options.processes} "
            f"processes, PyTorch {torch.__version__}."
        )
    return 0


def examine(plan: Plan) -> Outcome:
    """Finds an architecture, and retrains it.

    Args:
        plan: Which one, and how often.
    """
    torch.set_num_threads(1)
    search = _search_spec(plan)
    if plan.source == "random":
        genotype, supernet_accuracy = random_genotype(search, plan.seed), None
    else:
        genotype, supernet_accuracy = _search(search, plan.seed)
    spec = _retraining_spec(plan, genotype)
    last, best = [], []
    for seed in range(plan.retrainings):
        run = TrainingRun(spec, seed)
        while not run.finished:
            run.run_epoch()
        result = run.result()
        assert result.best is not None, "the preset holds images out"
        last.append(result.last.accuracy)
        best.append(result.best.accuracy)
    return Outcome(
        source=plan.source,
        seed=plan.seed,
        genotype=genotype.to_text(),
        parameters=profile(build_network(spec, 0), spec.dataset.facts.image_shape).parameters,
        supernet_accuracy=supernet_accuracy,
        last_accuracies=last,
        best_accuracies=best,
    )


def random_genotype(spec: SearchSpec, seed: int) -> CellGenotype:
    """An architecture of a space in which every choice is as likely as every other.

    Args:
        spec: Its space is chosen from.
        seed: Of the choice.
    """
    generator = stream(seed, "random genotype")
    assert isinstance(spec.space, CellSpace)
    shape = (spec.space.num_edges, len(spec.space.primitives))
    normal_ep, reduce_ep = (torch.rand(shape, generator=generator) for _ in range(2))
    return derive.cell_genotype(normal_ep, reduce_ep, spec.space.primitives)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a Markdown table: mean and standard deviation over architectures.

    Args:
        outcomes: In any order; each source with some is a row.
    """
    head = (
        "architectures",
        "number",
        "supernet validation %",
        "test %, last epoch",
        "test %, epoch chosen on validation",
        "parameters",
    )
    lines = [_row(head), _row(["---"] * len(head))]
    for source, label in _LABELS.items():
        of_source = [outcome for outcome in outcomes if outcome.source == source]
        if not of_source:
            continue
        supernet = [
            each.supernet_accuracy for each in of_source if each.supernet_accuracy is not None
        ]
        cells = [
            label,
            str(len(of_source)),
            _percent(supernet) if supernet else "-",
            _percent([fmean(each.last_accuracies) for each in of_source]),
            _percent([fmean(each.best_accuracies) for each in of_source]),
            f"{fmean(each.parameters for each in of_source):,.0f}",
        ]
        lines.append(_row(cells))
    return "\n".join(lines)


def _parse(arguments: list[str]) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.digits_numerics", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=3, help="searches with each weighting")
    parser.add_argument("--random", type=int, help="random architectures; default: twice --seeds")
    parser.add_argument("--retrainings", type=int, default=2, help="of every architecture")
    parser.add_argument("--search-epochs", type=int, help="default: the preset's")
    parser.add_argument("--retraining-epochs", type=int, help="default: the preset's")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="every outcome, for programs")
    options = parser.parse_args(arguments)
    if options.random is None:
        options.random = 2 * options.seeds
    for name in ("seeds", "random", "retrainings", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def _run_all(plans: list[Plan], processes: int) -> list[Outcome]:
    done: dict[Plan, Outcome] = {}
    # Spawned: a forked process would inherit whatever threads PyTorch has started here.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(examine, plan): plan for plan in plans}
        for future in as_completed(futures):
            plan = futures[future]
            done[plan] = future.result()
            print(f"{len(done)}/{len(plans)}: {plan.source} {plan.seed}", file=sys.stderr)
    return [done[plan] for plan in plans]


def _search_spec(plan: Plan) -> SearchSpec:
    weighting = "scalar" if plan.source == "random" else plan.source
    return SearchSpec.model_validate(
        {
            "preset": "digits-quick",
            "space": {"kind": "darts"},
            "algorithm": {"order": "first", "weighting": weighting},
            "training": _epochs(plan.search_epochs),
        }
    )


def _retraining_spec(plan: Plan, genotype: CellGenotype) -> RetrainingSpec:
    return RetrainingSpec.model_validate(
        {
            "preset": "retrain-digits",
            "architecture": genotype,
            "training": _epochs(plan.retraining_epochs),
        }
    )


def _epochs(epochs: int | None) -> dict[str, int]:
    return {} if epochs is None else {"epochs": epochs}


def _search(spec: SearchSpec, seed: int) -> tuple[CellGenotype, float]:
    run = SearchRun(spec, seed)
    accuracy = 0.0
    while not run.finished:
        accuracy = run.run_epoch().metrics["validation_accuracy"]
    genotype = run.genotype()
    assert isinstance(genotype, CellGenotype)
    return genotype, accuracy


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(fractions: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(fractions):.2f}" if len(fractions) > 1 else ""
    return f"{100 * fmean(fractions):.2f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
