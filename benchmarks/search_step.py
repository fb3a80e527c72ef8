"""The plain and the fast relaxation, side by side.

    python -m benchmarks.search_step --space darts --order first --batch 16

makes bilevel steps of both in turn, after a warm-up, and prints the median seconds of each half
with the lowest and the highest, images a second, peak memory, and how many times faster the fast
form is. The plain form is DARTS' as published: one module for each edge and primitive, contiguous
tensors, and in the first order a backward pass in the architecture half that computes the weights'
gradients too.

On a GPU (`--device cuda`) the plan makes steps as a search does there: grouped, and captured after
a few. With `--dtype bfloat16` it computes in that; the plain form, the baseline, stays in float32.
What is computed in float32 is rounded to TF32 in both, as PyTorch does by default, but for the
finite difference of the second order; with `--no-tf32` nothing is.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

import torch
from torch.nn import functional

from benchmarks.steps import SPACES, in_turn, machine, peak_mib, space_of
from search_core import weighting
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.graphs import WARM_UP, StaticStep
from search_core.orders import ArchitectureGradient
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec
from search_core.supernet import Supernet

FORMS: Final = ("plain", "fast")


@dataclass(frozen=True)
class Timing:
    """Steps of one form.

    Attributes:
        architecture: Median seconds of the architecture half, with the lowest and the highest.
        weights: Of the weight half.
        step: Of both.
        images_per_second: Of one half, at the median step.
        peak_mib: Memory at its highest, less what there was before the first step.
    """

    architecture: tuple[float, float, float]
    weights: tuple[float, float, float]
    step: tuple[float, float, float]
    images_per_second: float
    peak_mib: float


class Stepper:
    """Makes timed steps of one form.

    Args:
        form: `plain` or `fast`, as `algorithm.relaxation` calls them.
        options: The command line's.
    """

    def __init__(self, form: str, options: argparse.Namespace) -> None:
        self._device = torch.device(options.device)
        spec = SearchSpec.model_validate(
            {
                "space": space_of(options),
                "dataset": {"name": "synthetic"},
                "algorithm": {"order": options.order, "weighting": options.weighting},
                "training": {"precision": _precision(form, options)},
            }
        )
        network = build_supernet(
            spec.space,
            (3, options.size, options.size),
            options.classes,
            weighting=weighting.from_spec(spec.algorithm),
            weight_generator=stream(0, "weights"),
            alpha_generator=stream(0, "alphas"),
        ).to(self._device, _weight_dtype(options))
        network.precision = spec.training.precision
        if form == "fast":
            network.plan()
        is_static = form == "fast" and self._device.type == "cuda"
        self._step = BilevelStep(network, spec.algorithm, spec.training, capturable=is_static)
        self._static = StaticStep(self._step, self._device) if is_static else None
        if form == "plain" and options.order == "first":
            self._step.order = _first_order_with_all_gradients
        generator = stream(0, "images")
        dtype = _weight_dtype(options)
        shape = (options.batch, 3, options.size, options.size)
        self._train, self._validation = (
            LabelledImages(
                torch.randn(shape, generator=generator).to(self._device, dtype),
                torch.randint(options.classes, (options.batch,), generator=generator).to(
                    self._device
                ),
            )
            for _ in range(2)
        )

    def __call__(self) -> tuple[float, float]:
        """Makes one step.

        Returns:
            Seconds of the architecture half, and of the weight half.
        """
        started = self._now()
        if self._static is not None:
            self._static.fill(self._train, self._validation)
            self._static.train_alphas()
        else:
            self._step.train_alphas(self._train, self._validation)
        between = self._now()
        if self._static is not None:
            self._static.train_weights()
        else:
            self._step.train_weights(self._train)
        return between - started, self._now() - between

    @property
    def network(self) -> Supernet:
        """What is trained."""
        return self._step.network

    @property
    def is_on_gpu(self) -> bool:
        """Whether the steps are made on a GPU."""
        return self._device.type == "cuda"

    def warm_up(self) -> None:
        """Makes the steps that are not timed; on a GPU enough of them for the next to be a replay.

        Raises:
            RuntimeError: The step could not be captured.
        """
        for _ in range(WARM_UP + 2 if self._static is not None else 1):
            self()
        failure = None if self._static is None else self._static.take_failure()
        if failure is not None:
            raise RuntimeError(f"the step was not captured: {failure}")

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        arguments: The command line; None takes this process's.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    torch.set_num_threads(options.threads)
    if options.no_tf32:
        torch.backends.cudnn.allow_tf32 = False
    if options.memory_of:
        print(peak_mib(Stepper(options.memory_of, options), options.device))
        return 0
    steppers = {form: Stepper(form, options) for form in FORMS}
    if options.profile:
        for form, stepper in steppers.items():
            _profile(form, stepper)
        return 0
    for stepper in steppers.values():
        stepper.warm_up()
    halves = in_turn(steppers, options.repeats)
    peaks = _peaks(given)
    timings = {form: _timing(halves[form], peaks[form], options) for form in FORMS}
    ratio = timings["plain"].step[0] / timings["fast"].step[0]
    memory = timings["fast"].peak_mib / timings["plain"].peak_mib
    if options.json:
        found = {form: asdict(timing) for form, timing in timings.items()}
        settings = {key: value for key, value in vars(options).items() if key != "memory_of"}
        print(
            json.dumps(
                {
                    "ratio": ratio,
                    "memory_ratio": memory,
                    **found,
                    **settings,
                    **machine(options.device),
                }
            )
        )
        return 0
    print("| form | architecture half, s | weight half, s | step, s | images/s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for form, timing in timings.items():
        cells = [_spread(each) for each in (timing.architecture, timing.weights, timing.step)]
        cells += [f"{timing.images_per_second:.1f}", f"{timing.peak_mib:.0f}"]
        print(f"| {form} | {' | '.join(cells)} |")
    print(f"\nThe fast form is {ratio:.2f} times as fast and takes {memory:.2f} of the memory.")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line.

    Args:
        arguments: The command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_step", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--space", choices=list(SPACES), default="darts")
    parser.add_argument("--order", choices=["first", "second"], default="first")
    parser.add_argument("--weighting", choices=["scalar", "max_w"], default="scalar")
    parser.add_argument("--dtype", choices=["float32", "float64", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--channels", type=int, default=16, help="of the cell spaces")
    parser.add_argument("--cells", type=int, default=8, help="of the cell spaces")
    parser.add_argument("--nodes", type=int, default=4, help="of the cell spaces")
    parser.add_argument(
        "--primitives", nargs="+", help="of the cell spaces; default: all of theirs"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each form")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--no-tf32",
        action="store_true",
        help="on a GPU: what is computed in float32 is not rounded to TF32",
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--json", action="store_true", help="one object, with `ratio` in it")
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in ("batch", "size", "repeats", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def _weight_dtype(options: argparse.Namespace) -> torch.dtype:
    return torch.float64 if options.dtype == "float64" else torch.float32


def _precision(form: str, options: argparse.Namespace) -> str:
    return "bfloat16" if options.dtype == "bfloat16" and form == "fast" else "float32"


def _first_order_with_all_gradients(
    network: Supernet, _optimizer: object, _train: LabelledImages, validation: LabelledImages
) -> ArchitectureGradient:
    """As the published code takes it, which calls `backward` on the validation loss."""
    loss = functional.cross_entropy(network(validation.images_nchw), validation.labels_n)
    alphas = network.architecture_parameters()
    gradients = torch.autograd.grad(
        loss, [*alphas, *network.weight_parameters()], materialize_grads=True
    )
    return ArchitectureGradient(loss.detach(), gradients[: len(alphas)])


def _peaks(given: Sequence[str]) -> dict[str, float]:
    """The peak memory of each form in MiB.

    In processes of their own: this one's is that of whichever form takes more.

    Raises:
        RuntimeError: One of them failed; it has said why.
    """
    command = [sys.executable, "-m", "benchmarks.search_step", *given, "--memory-of"]
    processes = {
        form: subprocess.Popen([*command, form], stdout=subprocess.PIPE, text=True)
        for form in FORMS
    }
    said = {form: process.communicate()[0] for form, process in processes.items()}
    for form, process in processes.items():
        if process.returncode:
            raise RuntimeError(f"the memory of the {form} form could not be measured")
    return {form: float(each) for form, each in said.items()}


def _timing(
    halves: Sequence[tuple[float, float]], peak_mib: float, options: argparse.Namespace
) -> Timing:
    steps = [architecture + weights for architecture, weights in halves]
    return Timing(
        architecture=_summary([architecture for architecture, _ in halves]),
        weights=_summary([weights for _, weights in halves]),
        step=_summary(steps),
        images_per_second=options.batch / median(steps),
        peak_mib=peak_mib,
    )


def _profile(form: str, stepper: Stepper) -> None:
    stepper.warm_up()
    with torch.profiler.profile() as profile:
        stepper()
    print(f"\n{form}\n")
    by_device = "self_device_time_total" if stepper.is_on_gpu else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=by_device, row_limit=20))


def _summary(seconds: Sequence[float]) -> tuple[float, float, float]:
    return median(seconds), min(seconds), max(seconds)


def _spread(summary: tuple[float, float, float]) -> str:
    middle, lowest, highest = summary
    return f"{middle:.2f} ({lowest:.2f} to {highest:.2f})"


if __name__ == "__main__":
    sys.exit(main())
