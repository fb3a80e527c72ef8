"""Several seeds side by side in a stack, against one alone and as many one after the other.

    python -m benchmarks.stacked_seeds --space darts --seeds 4

makes bilevel steps of the three in turn, after a warm-up, and prints the median seconds of a step
with the lowest and the highest, the operators that it calls (on a GPU each launches a kernel or
two), and peak memory; then what the seeds cost stacked, as a multiple of one. A seed alone computes
its mixtures as a search on that device does unless told otherwise.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.steps import SPACES, in_turn, machine, peak_mib, space_of
from search_core import weighting
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec
from search_core.stacking.orders import StackedBatch
from search_core.stacking.step import StackedStep

FORMS: Final = ("alone", "in turn", "stacked")


@dataclass(frozen=True)
class Timing:
    """Steps of one form.

    Attributes:
        step: Median seconds of a step of all its seeds, with the lowest and the highest.
        operators: Calls of operators that compute, in one step.
        images_per_second: Of one half, of all seeds, at the median step.
        peak_mib: Memory at its highest, less what there was before the first step.
    """

    step: tuple[float, float, float]
    operators: int
    images_per_second: float
    peak_mib: float


class Stepper:
    """Makes timed steps of one form.

    Args:
        form: `alone`, `in turn` or `stacked`.
        options: The command line's.
    """

    def __init__(self, form: str, options: argparse.Namespace) -> None:
        self._device = torch.device(options.device)
        spec = SearchSpec.model_validate(
            {
                "space": space_of(options),
                "dataset": {"name": "synthetic"},
                "algorithm": {"order": options.order, "weighting": options.weighting},
            }
        )
        seeds = range(1 if form == "alone" else options.seeds)
        self._steps = [_step(spec, seed, options) for seed in seeds]
        self._batches = [
            (_batch(seed, "training", options), _batch(seed, "validation", options))
            for seed in seeds
        ]
        self._stacked = (
            StackedStep(self._steps, spec.algorithm, spec.training) if form == "stacked" else None
        )
        self.num_seeds = len(seeds)

    def __call__(self) -> float:
        """Makes one step of all seeds.

        Returns:
            Its seconds.
        """
        started = self._now()
        if self._stacked is None:
            for step, (train, validation) in zip(self._steps, self._batches, strict=True):
                step(train, validation)
        else:
            halves = [StackedBatch.of(half) for half in zip(*self._batches, strict=True)]
            self._stacked.train_alphas(halves[0], halves[1])
            self._stacked.train_weights(halves[0])
        return self._now() - started

    def operators(self) -> int:
        """Calls of operators that compute, in one step."""
        called = _Operators()  # type: ignore[no-untyped-call]
        with called:
            self()
        return called.count

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators that compute: not those that only look at memory in another way."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if not (func.is_view or "empty" in name or "detach" in name or "unsafe_view" in name):
            self.count += 1
        return func(*args, **(kwargs or {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_mib(Stepper(options.memory_of, options), options.device))
        return 0
    steppers = {form: Stepper(form, options) for form in FORMS}
    for stepper in steppers.values():
        stepper()  # warms up
    seconds = in_turn(steppers, options.repeats)
    timings = {
        form: Timing(
            step=(median(seconds[form]), min(seconds[form]), max(seconds[form])),
            operators=stepper.operators(),
            images_per_second=stepper.num_seeds * options.batch / median(seconds[form]),
            peak_mib=_peak_elsewhere(form, given),
        )
        for form, stepper in steppers.items()
    }
    cost = timings["stacked"].step[0] / timings["alone"].step[0]
    ratio = timings["in turn"].step[0] / timings["stacked"].step[0]
    if options.json:
        found = {form.replace(" ", "_"): asdict(timing) for form, timing in timings.items()}
        settings = {key: value for key, value in vars(options).items() if key != "memory_of"}
        print(
            json.dumps(
                {"ratio": ratio, "cost": cost, **found, **settings, **machine(options.device)}
            )
        )
        return 0
    print("| form | seeds | step, s | operators | images/s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for form, timing in timings.items():
        middle, lowest, highest = timing.step
        print(
            f"| {form} | {steppers[form].num_seeds} | "
            f"{middle:.3f} ({lowest:.3f} to {highest:.3f}) | {timing.operators} | "
            f"{timing.images_per_second:.1f} | {timing.peak_mib:.0f} |"
        )
    print(
        f"\n{options.seeds} seeds stacked cost {cost:.2f} times one alone, and are {ratio:.2f} "
        "times as fast as one after the other."
    )
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stacked_seeds", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--space", choices=list(SPACES), default="darts")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--relaxation", choices=["auto", "fast", "plain"], default="auto")
    parser.add_argument("--order", choices=["first", "second"], default="first")
    parser.add_argument("--weighting", choices=["scalar", "max_w"], default="scalar")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="images of each seed")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--channels", type=int, default=16, help="of the cell spaces")
    parser.add_argument("--cells", type=int, default=8, help="of the cell spaces")
    parser.add_argument("--nodes", type=int, default=4, help="of the cell spaces")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each form")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="one object, with `ratio` and `cost`")
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, least in (("seeds", 2), ("batch", 1), ("size", 1), ("repeats", 1), ("threads", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    return options


def _step(spec: SearchSpec, seed: int, options: argparse.Namespace) -> BilevelStep:
    network = build_supernet(
        spec.space,
        (3, options.size, options.size),
        10,
        weighting=weighting.from_spec(spec.algorithm),
        weight_generator=stream(seed, "weights"),
        alpha_generator=stream(seed, "alphas"),
    ).to(options.device, getattr(torch, options.dtype))
    fast = options.relaxation == "fast"
    if fast or (options.relaxation == "auto" and torch.device(options.device).type == "cpu"):
        network.plan()
    return BilevelStep(network, spec.algorithm, spec.training)


def _batch(seed: int, purpose: str, options: argparse.Namespace) -> LabelledImages:
    generator = stream(seed, purpose)
    shape = (options.batch, 3, options.size, options.size)
    images_nchw = torch.randn(shape, generator=generator).to(getattr(torch, options.dtype))
    labels_n = torch.randint(10, (options.batch,), generator=generator)
    return LabelledImages(images_nchw, labels_n).to(options.device)


def _peak_elsewhere(form: str, given: Sequence[str]) -> float:
    """In a process of its own: this one's peak is that of whichever form takes most."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.stacked_seeds", *given, "--memory-of", form],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(said.stdout)


if __name__ == "__main__":
    sys.exit(main())
