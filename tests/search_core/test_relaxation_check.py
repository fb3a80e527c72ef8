"""Whether a comparison of both forms finds what is wrong with a plan, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_core import supernet
from search_core.primitives import REGISTRY, Slot
from search_core.relaxation import GroupedPlan, plans, stages
from search_core.relaxation.statistics import known_statistics
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import Known
from search_core.relaxation_check import (
    Difference,
    comparison,
    differences,
    largest_difference,
    passes,
)
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from tests.search_core.full_precision import InFull

SpecMaker = Callable[..., SearchSpec]


def skew_weight_gradients(monkeypatch: pytest.MonkeyPatch, factor: Callable[[], float]) -> None:
    """Has the kernels of plans give the gradients of weights times a factor."""
    right = vars(plans)["mix"]

    def wrong(*given: Any, **options: Any) -> Any:
        *others, weights = given
        skewed = [Skewed.apply(weight, factor) for weight in weights]
        return right(*others, skewed, **options)

    monkeypatch.setattr(plans, "mix", wrong)


class Skewed(torch.autograd.Function):
    """The identity, with a gradient that is wrong, or an error in its place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Callable[[], float]) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, d_x: Tensor) -> tuple[Tensor, None]:
        return ctx.factor() * d_x, None


def test_a_difference_that_is_no_number_is_too_large(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SearchRun(make_spec(), 0)
    skew_weight_gradients(monkeypatch, lambda: torch.nan)
    difference = largest_difference(run.network, run._train, batch_size=200)
    assert difference.excess == torch.inf
    assert "the gradient of cells." in str(difference)
    with torch.no_grad():
        run.network.weight_parameters()[0].fill_(torch.inf)
    # A network that has diverged already says nothing about its plan.
    assert largest_difference(run.network, run._train, batch_size=200).excess == 0


def test_evaluations_are_compared_where_plans_make_them(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernet, "planner_for", lambda _: GroupedPlan)
    run = SearchRun(make_spec(), 0)
    assert largest_difference(run.network, run._train, batch_size=200).excess < 1

    def wrong(norms: Sequence[nn.BatchNorm2d]) -> Known | None:
        known = known_statistics(norms)
        return None if known is None else Known(2 * known.mean_kc, 2 * known.variance_kc)

    monkeypatch.setattr(stages, "known_statistics", wrong)
    difference = largest_difference(run.network, run._train, batch_size=200)
    assert difference.excess > 1
    assert "the loss in evaluation" in str(difference)


def test_what_overflows_in_the_plain_form_is_not_blamed_on_a_plan(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)
    batch = next(run._train.in_order(8))
    exact = passes.measure(run.network, batch, "float32", jointly=False, evaluates=False)
    found = {name: each.clone() for name, each in exact.gradients[1].items()}
    name = next(iter(found))
    found[name].fill_(torch.inf)
    right = replace(exact, precision="bfloat16")
    overflowed = replace(right, gradients=[exact.gradients[0], found])
    assert differences.in_lower_precision(overflowed, overflowed, exact).excess < 1
    assert differences.in_lower_precision(right, overflowed, exact).excess < 1
    assert differences.in_lower_precision(overflowed, right, exact).excess == torch.inf


def test_both_precisions_begin_with_the_same_statistics(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)
    copied = comparison.copy_of(run.network)
    before = {name: each.clone() for name, each in copied.named_buffers()}
    batch = next(run._train.in_order(8))
    comparison._both(copied, batch, "float32", jointly=False)
    assert all(torch.equal(each, before[name]) for name, each in copied.named_buffers())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 200])
def test_it_looks_at_few_images(make_spec: SpecMaker, batch_size: int) -> None:
    run = SearchRun(make_spec(training={"batch_size": batch_size}), 0)
    assert largest_difference(run.network, run._train, batch_size=batch_size).excess < 1


def test_a_check_draws_no_random_numbers_that_count(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = REGISTRY["darts", "sep_conv_3x3"]

    def dropping(slot: Slot) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), honest(slot))

    monkeypatch.setitem(REGISTRY, ("darts", "sep_conv_3x3"), dropping)
    run = SearchRun(make_spec(space={"primitives": ["max_pool_3x3", "sep_conv_3x3"]}), 0)
    before = torch.get_rng_state()
    largest_difference(run.network, run._train, batch_size=200)
    assert torch.equal(before, torch.get_rng_state())
    run.network(next(run._train.in_order(8)).images_nchw)
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("precision", "factor", "what"),
    [
        ("float32", 1.0, None),
        ("float32", 1.02, "the statistics of all tensors in tf32"),
        ("bfloat16", 1.0, None),
        ("bfloat16", 2.0, "the loss in evaluation after training in bfloat16"),
    ],
)
def test_what_is_wrong_in_tf32_only(
    make_spec: SpecMaker,
    precision: str,
    factor: float,
    what: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_full = InFull()
    right = TorchArithmetic.multiply

    def multiply(self: TorchArithmetic, x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
        product_nkohw = right(self, x_nkihw, weight_koi)
        rounds = product_nkohw.dtype == torch.float32 and not in_full.is_on
        return factor * product_nkohw if rounds else product_nkohw

    monkeypatch.setattr(comparison, "rounds_to_tf32", lambda _: True)
    monkeypatch.setattr(passes, "in_full", in_full)
    monkeypatch.setattr(supernet, "planner_for", lambda _: GroupedPlan)
    monkeypatch.setattr(TorchArithmetic, "multiply", multiply)
    run = SearchRun(make_spec(), 0)
    run.network.precision = precision
    difference = largest_difference(run.network, run._train, batch_size=32)
    if what is None:
        assert difference.excess < 1
    else:
        assert difference.excess > 1
        assert str(difference).startswith(f"{what} differs by ")


class OfHalfPrecision(torch.autograd.Function):
    """The identity but for tensors of half precision, which it changes; so do their gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forward: Callable[[Tensor], Tensor], backward: Callable[..., Tensor]
    ) -> Tensor:
        ctx.backward_of = backward if x.dtype == torch.bfloat16 else torch.clone
        return forward(x) if x.dtype == torch.bfloat16 else x.clone()

    @staticmethod
    def backward(ctx: Any, d_x: Tensor) -> tuple[Tensor, None, None]:
        return ctx.backward_of(d_x), None, None


def found_in_bfloat16(
    make_spec: SpecMaker,
    monkeypatch: pytest.MonkeyPatch,
    forward: Callable[[Tensor], Tensor] = torch.clone,
    backward: Callable[..., Tensor] = torch.clone,
    space: str = "darts",
    seed: int = 0,
) -> Difference:
    """What a comparison finds where plans treat the products of half precision so."""
    right = TorchArithmetic.multiply

    def wrong(self: TorchArithmetic, x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
        product_nkohw = right(self, x_nkihw, weight_koi)
        changed_nkohw: Tensor = OfHalfPrecision.apply(product_nkohw, forward, backward)
        return changed_nkohw

    monkeypatch.setattr(supernet, "planner_for", lambda _: GroupedPlan)
    monkeypatch.setattr(TorchArithmetic, "multiply", wrong)
    run = SearchRun(make_spec(space={"kind": space}), seed)
    run.network.precision = "bfloat16"
    run.network.plan()
    return largest_difference(run.network, run._train, batch_size=32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", ["darts", "sharp_darts"])
def test_rounding_to_half_precision_is_no_difference(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch, space: str, seed: int
) -> None:
    assert found_in_bfloat16(make_spec, monkeypatch, space=space, seed=seed).excess < 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"forward": lambda x: 1.02 * x}, "the statistics of all tensors"),
        ({"forward": lambda x: x + 0.01 * x.amax()}, "the statistics of all tensors"),
        ({"backward": torch.zeros_like}, "the gradient of all tensors"),
        ({"backward": torch.neg}, "the gradient of all tensors"),
        ({"backward": lambda d_x: torch.nan * d_x}, "the gradient of all tensors"),
    ],
    ids=["scaled", "shifted", "no gradient", "negative gradient", "no number"],
)
def test_what_is_wrong_in_half_precision_only(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], what: str
) -> None:
    difference = found_in_bfloat16(make_spec, monkeypatch, **changes)
    assert difference.excess > 1
    assert str(difference).startswith(what)
    assert " in bfloat16 differs by " in str(difference)
