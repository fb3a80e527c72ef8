"""What a search does when its plan is wrong or fails: it goes on as if it had been plain."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_core import relaxation_in_use, search_measurement, supernet
from search_core.bilevel import BilevelStep
from search_core.errors import DivergedError
from search_core.pace import reproducible
from search_core.primitives import REGISTRY, Slot
from search_core.relaxation import GroupedPlan, Plan, RunningStatistics, plans, stages
from search_core.relaxation.statistics import known_statistics
from search_core.relaxation.works import Known
from search_core.relaxation_in_use import RelaxationInUse
from search_core.reports import BatchProgress, EpochReport
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from tests.search_core.test_relaxation_check import Skewed, skew_weight_gradients
from tests.search_core.test_search import SPACES, KilledError, through_a_file

SpecMaker = Callable[..., SearchSpec]

FELL_BACK = "relaxation_fell_back"


def finish(run: SearchRun) -> list[EpochReport]:
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    return reports


def bits(run: SearchRun, reports: list[EpochReport]) -> tuple[Any, ...]:
    """All that must repeat, the network to its last statistic too."""
    state = run.network.state_dict()
    return (
        [(reproducible(each.metrics), each.alphas, each.genotype) for each in reports],
        {name: value.tolist() for name, value in state.items()},
    )


def plain_bits(spec: SearchSpec) -> tuple[Any, ...]:
    algorithm = spec.algorithm.model_copy(update={"relaxation": "plain"})
    run = SearchRun(spec.model_copy(update={"algorithm": algorithm}), 0)
    reports = finish(run)
    assert [each.relaxation for each in reports] == ["plain"] * len(reports)
    assert not any(FELL_BACK in kinds(each) for each in reports)
    return bits(run, reports)


def kinds(report: EpochReport) -> list[str]:
    return [warning.kind for warning in report.warnings]


def assert_it_fell_back(spec: SearchSpec, why: str) -> None:
    """From the first batch on, and said so once."""
    run = SearchRun(spec, 0)
    reports = finish(run)
    assert [each.relaxation for each in reports] == ["plain"] * len(reports)
    assert [FELL_BACK in kinds(each) for each in reports] == [True] + [False] * (len(reports) - 1)
    [message] = [each.message for each in reports[0].warnings if each.kind == FELL_BACK]
    assert why in message
    assert "results are right" in message
    assert bits(run, reports) == plain_bits(spec)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("kind", SPACES)
def test_a_check_changes_no_bit_of_a_search(
    make_spec: SpecMaker, kind: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(space=SPACES[kind], algorithm={"order": order}, training={"epochs": 1})
    before = torch.get_rng_state()
    checked = SearchRun(spec, 0)
    reports = finish(checked)
    assert torch.equal(before, torch.get_rng_state())
    assert [each.relaxation for each in reports] == ["fast"]
    assert FELL_BACK not in kinds(reports[0])
    monkeypatch.setattr(RelaxationInUse, "check", lambda self, images: None)
    unchecked = SearchRun(spec, 0)
    assert bits(unchecked, finish(unchecked)) == bits(checked, reports)


def test_what_is_not_planned_is_plain(make_spec: SpecMaker) -> None:
    assert SearchRun(make_spec(), 0).relaxation == "fast"
    assert SearchRun(make_spec(algorithm={"relaxation": "plain"}), 0).relaxation == "plain"
    cuboid = SPACES["hypercuboid"]
    for sections in (
        {"space": {**cuboid, "skip_below": 0.01}},
        {"space": cuboid, "algorithm": {"sampling": {"alphas": "paths"}, "relaxation": "fast"}},
    ):
        run = SearchRun(make_spec(**sections), 0)
        assert run.relaxation == "plain"
        assert FELL_BACK not in kinds(run.run_epoch())
    mixed = make_spec(space=cuboid, algorithm={"sampling": {"alphas": "mixture"}})
    assert SearchRun(mixed, 0).run_epoch().relaxation == "fast"


class Halved(nn.Sequential):
    """Says by its layers that it is a separable convolution, and computes half of one."""

    def __call__(self, x_nchw: Tensor) -> Tensor:
        halved_nchw: Tensor = 0.5 * super().__call__(x_nchw)
        return halved_nchw


def test_a_primitive_that_describes_itself_wrongly(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = REGISTRY["darts", "sep_conv_3x3"]

    def wrong(slot: Slot) -> nn.Module:
        return Halved(honest(slot))

    monkeypatch.setitem(REGISTRY, ("darts", "sep_conv_3x3"), wrong)
    assert_it_fell_back(make_spec(), "it does not compute what the plain form does")


def test_a_kernel_whose_gradient_is_wrong(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    skew_weight_gradients(monkeypatch, lambda: 1.2)
    assert_it_fell_back(make_spec(), "the gradient of cells.")


def test_statistics_that_are_wrong(make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    right = RunningStatistics.record_biased

    def wrong(
        self: RunningStatistics,
        norm: nn.BatchNorm2d,
        mean_c: Tensor,
        variance_c: Tensor,
        count: int,
    ) -> None:
        right(self, norm, mean_c, 1.01 * variance_c, count)

    monkeypatch.setattr(RunningStatistics, "record_biased", wrong)
    assert_it_fell_back(make_spec(), "the statistic cells.")


def test_a_plan_that_cannot_be_made(make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Plan, terms: object) -> None:
        raise KeyError("no such layer")

    monkeypatch.setattr(Plan, "__init__", fail)
    assert SearchRun(make_spec(), 0).relaxation == "plain"
    assert_it_fell_back(make_spec(), "it could not be made: KeyError: 'no such layer'")


def test_a_plan_that_fails_on_its_first_images(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> float:
        raise RuntimeError("no such kernel")

    skew_weight_gradients(monkeypatch, fail)
    assert_it_fell_back(make_spec(), "it failed on its first images: RuntimeError: no such kernel")


class Fault:
    """Makes plans fail once, when it is armed: in the midst of a forward or of a backward pass."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, during: str, error: Exception, after: int = 2
    ) -> None:
        right = vars(plans)["mix"]
        self._error = error
        self._after = after
        self._left: int | None = None

        def perhaps_fail(*given: Any, **options: Any) -> Any:
            if during == "forward":
                self._count()
                return right(*given, **options)
            # One half takes gradients of the multipliers, the other one of the weights.
            *others, weights = given
            others = [Skewed.apply(x, self._count) if isinstance(x, Tensor) else x for x in others]
            first = [Skewed.apply(each, self._count) for each in weights[:1]]
            return right(*others, [*first, *weights[1:]], **options)

        monkeypatch.setattr(plans, "mix", perhaps_fail)

    def arm(self) -> None:
        self._left = self._after

    def _count(self) -> float:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                raise self._error
        return 1.0


def at_the_second_batch(
    monkeypatch: pytest.MonkeyPatch, half: str, do: Callable[[BilevelStep], None]
) -> None:
    """Does something when the given half of the second step begins."""
    right = getattr(BilevelStep, half)
    count = 0

    def wrapped(self: BilevelStep, *given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            do(self)
        return right(self, *given)

    monkeypatch.setattr(BilevelStep, half, wrapped)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("half", ["train_alphas", "descend"])
@pytest.mark.parametrize("during", ["forward", "backward"])
@pytest.mark.parametrize(
    ("kind", "order"), [("darts", "first"), ("darts", "second"), ("hypercuboid", "first")]
)
def test_a_plan_that_fails_in_training_leaves_no_trace(
    make_spec: SpecMaker,
    kind: str,
    order: str,
    during: str,
    half: str,
    static: bool,
    request: pytest.FixtureRequest,
) -> None:
    if static:
        request.getfixturevalue("_static_on_a_cpu")
    # The fault comes after a cell, or a position, has written statistics.
    spec = make_spec(space=SPACES[kind], algorithm={"order": order})
    with pytest.MonkeyPatch.context() as monkeypatch:
        at_the_second_batch(monkeypatch, half, lambda step: step.network.unplan())
        expected = SearchRun(spec, 0)
        expected_bits = bits(expected, finish(expected))
    with pytest.MonkeyPatch.context() as monkeypatch:
        fault = Fault(monkeypatch, during, RuntimeError("no such kernel"))
        at_the_second_batch(monkeypatch, half, lambda step: fault.arm())
        run = SearchRun(spec, 0)
        reports = finish(run)
    assert bits(run, reports) == expected_bits
    assert [each.relaxation for each in reports] == ["plain", "plain"]
    [warning] = [each for report in reports for each in report.warnings if each.kind == FELL_BACK]
    assert warning in reports[0].warnings
    assert "it failed in training: RuntimeError: no such kernel" in warning.message


def have_no_numbers_from_the_second_batch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets plans give no numbers from the weights' half of the second step on."""
    right = vars(plans)["mix"]
    is_broken = False

    def perhaps_not_a_number(*given: Any, **options: Any) -> Any:
        *others, weights = given
        if is_broken:
            weights = [torch.nan * each for each in weights]
        return right(*others, weights, **options)

    def break_it(step: BilevelStep) -> None:
        nonlocal is_broken
        is_broken = True

    monkeypatch.setattr(plans, "mix", perhaps_not_a_number)
    at_the_second_batch(monkeypatch, "descend", break_it)


def test_a_plan_that_gives_no_number_in_training(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_no_numbers_from_the_second_batch_on(monkeypatch)
    run = SearchRun(make_spec(), 0)
    reports = finish(run)
    [warning] = reports[0].warnings
    assert "it failed in training: DivergedError: the training loss is nan" in warning.message
    assert all(each.isfinite().all() for each in run.network.state_dict().values())


@pytest.mark.parametrize("repeated", [True, False], ids=["repeated", "as anywhere"])
@pytest.mark.parametrize("failure", ["an error", "no number"])
def test_a_plan_that_fails_in_evaluation_leaves_no_trace(
    make_spec: SpecMaker,
    failure: str,
    repeated: bool,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if repeated:
        request.getfixturevalue("_static_on_a_cpu")
    # 2,000 images of the alphas' half are four batches and a smaller one.
    monkeypatch.setattr(supernet, "planner_for", lambda _: GroupedPlan)
    spec = make_spec(space={"nodes": 2})
    undisturbed = SearchRun(spec, 0)
    before = undisturbed.run_epoch()
    validate = search_measurement.validate
    is_measuring = False
    count = 0

    def measuring(*given: Any, **options: Any) -> tuple[float, float]:
        assert (options["static"] is not None) == repeated
        nonlocal is_measuring
        is_measuring = True  # and no longer comparing
        return validate(*given, **options)

    def fail(norms: Sequence[nn.BatchNorm2d]) -> Known | None:
        known = known_statistics(norms)
        nonlocal count
        if known is None or not is_measuring:
            return known
        count += 1
        if count < 3:
            return known
        if failure == "no number":
            return Known(torch.nan * known.mean_kc, known.variance_kc)
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(search_measurement, "validate", measuring)
    monkeypatch.setattr(stages, "known_statistics", fail)
    run = SearchRun(spec, 0)
    first = run.run_epoch()
    known = undisturbed.network.state_dict()
    for name, values in run.network.state_dict().items():
        assert torch.equal(values, known[name]), name
    second = run.run_epoch()
    assert (first.relaxation, second.relaxation) == ("plain", "plain")
    [warning] = [each for each in first.warnings if each.kind == FELL_BACK]
    assert "it failed in evaluation: " in warning.message
    assert ("no such kernel" if failure == "an error" else "loss is nan") in warning.message
    assert FELL_BACK not in kinds(second)
    for name, value in reproducible(before.metrics).items():
        assert first.metrics[name] == pytest.approx(value, rel=1e-4), name
    assert undisturbed.relaxation == "fast"


@pytest.mark.usefixtures("_static_on_a_cpu")
def test_images_that_cannot_be_read_are_no_fault_of_a_plan(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SearchRun(make_spec(), 0)

    right = type(run.validation).in_order

    def fail(images: Any, size: int) -> Any:
        if images is run.validation:
            raise OSError("image file is truncated")
        return right(images, size)

    with monkeypatch.context() as patched:
        patched.setattr(type(run.validation), "in_order", fail)
        with pytest.raises(OSError, match="truncated"):
            run.run_epoch()
    assert run.relaxation == "fast"
    assert FELL_BACK not in kinds(run.run_epoch())


@pytest.mark.usefixtures("_static_on_a_cpu")
def test_a_measurement_that_is_no_number_in_both_forms_ends_the_run(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)

    def poison(progress: BatchProgress) -> None:
        if progress.batch == progress.batches:
            with torch.no_grad():
                run.network.weight_parameters()[-1].fill_(torch.inf)

    with pytest.raises(DivergedError, match="end of epoch 1: the validation loss is "):
        run.run_epoch(poison)
    assert run.relaxation == "fast"


def test_what_is_being_captured_is_not_done_again(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SearchRun(make_spec(), 0)
    monkeypatch.setattr(relaxation_in_use, "_is_capturing", lambda _: True)

    def fail() -> None:
        raise RuntimeError("not permitted while a stream is captured")

    with pytest.raises(RuntimeError, match="not permitted"):
        run._relaxation.compute(fail)
    assert run.relaxation == "fast"


@pytest.mark.usefixtures("_static_on_a_cpu")
def test_a_plan_that_gives_no_number_in_static_steps_ends_the_search(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_no_numbers_from_the_second_batch_on(monkeypatch)
    with pytest.raises(DivergedError, match="epoch 1, batch 2: the training loss is nan"):
        SearchRun(make_spec(), 0).run_epoch()


def test_what_is_not_the_plans_fault_is_let_through(make_spec: SpecMaker) -> None:
    def armed(fault: Fault) -> Callable[[BilevelStep], None]:
        return lambda step: fault.arm()

    errors: list[tuple[Exception, str]] = [
        (torch.OutOfMemoryError("tried to allocate 8 GiB"), "tried to allocate"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "can't allocate"),
        (MemoryError("none left"), "none left"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "ALLOC_FAILED"),
    ]
    for error, message in errors:
        for begin in (True, False):
            with pytest.MonkeyPatch.context() as monkeypatch:
                fault = Fault(monkeypatch, "forward", error)
                run = SearchRun(make_spec(), 0)
                if begin:
                    fault.arm()
                else:
                    at_the_second_batch(monkeypatch, "train_weights", armed(fault))
                with pytest.raises(type(error), match=message):
                    run.run_epoch()
                assert run.relaxation == "fast"


def test_what_fails_plainly_too_is_let_through(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)

    def poison(progress: BatchProgress) -> None:
        with torch.no_grad():
            run.network.weight_parameters()[0].fill_(torch.inf)

    with pytest.raises(DivergedError, match="epoch 1, batch 2"):
        run.run_epoch(poison)


def kill_after(run: SearchRun, num_batches: int) -> None:
    def stop(progress: BatchProgress) -> None:
        if progress.batch == num_batches:
            raise KilledError

    with pytest.raises(KilledError):
        run.run_epoch(stop)


def test_a_run_that_has_fallen_back_is_resumed_plainly(make_spec: SpecMaker) -> None:
    spec = make_spec(training={"epochs": 3})

    def broken_run(monkeypatch: pytest.MonkeyPatch) -> SearchRun:
        fault = Fault(monkeypatch, "forward", RuntimeError("no such kernel"))
        at_the_second_batch(monkeypatch, "train_weights", lambda step: fault.arm())
        return SearchRun(spec, 0)

    with pytest.MonkeyPatch.context() as monkeypatch:
        run = broken_run(monkeypatch)
        undisturbed = bits(run, finish(run))
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = broken_run(monkeypatch)
        kill_after(run, 2)
        within = through_a_file(run.state_dict())
        first = run.run_epoch()
        between = through_a_file(run.state_dict())
    assert kinds(first) == [FELL_BACK]
    for state, told in ((within, [FELL_BACK, None, None]), (between, [None, None])):
        resumed = SearchRun(spec, 0)
        before = resumed.relaxation
        resumed.load_state_dict(state)
        assert (before, resumed.relaxation) == ("fast", "plain")
        reports = finish(resumed)
        assert [next((k for k in kinds(each) if k == FELL_BACK), None) for each in reports] == told
        repeated = undisturbed[0][-len(reports) :], undisturbed[1]
        assert bits(resumed, reports) == repeated


def test_a_resumed_run_checks_again(make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec()
    run = SearchRun(spec, 0)
    assert run.run_epoch().relaxation == "fast"
    skew_weight_gradients(monkeypatch, lambda: 1.2)
    resumed = SearchRun(spec, 0)
    resumed.load_state_dict(run.state_dict())
    report = resumed.run_epoch()
    assert (report.relaxation, kinds(report)) == ("plain", [FELL_BACK])


def test_what_only_some_images_show_may_be_a_kink(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SearchRun(make_spec(), 0)
    asked = 0

    def wrong_at_first() -> float:
        nonlocal asked
        asked += 1
        return 1.2 if asked == 1 else 1.0

    skew_weight_gradients(monkeypatch, wrong_at_first)
    assert run.run_epoch().relaxation == "fast"
    assert asked > 1
