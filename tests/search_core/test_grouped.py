"""The relaxation of a GPU, on a CPU, against the plain one, which is the oracle."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from search_core.bilevel import BilevelStep
from search_core.randomness import stream
from search_core.relaxation import (
    GroupedPlan,
    Multipliers,
    Plan,
    RunningStatistics,
    Shared,
    Term,
    adjacent,
    planner_for,
    torch_arithmetic,
)
from search_core.relaxation.stacks import Stacks
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import Part
from search_core.spec import SearchSpec
from search_core.supernet import Supernet
from tests.search_core.test_relaxation import (
    SPACES,
    batch,
    buffers,
    cell_spaces,
    distance,
    loss_and_gradients,
    operations,
    spec_of,
    supernet,
)


def both(
    spec: SearchSpec, size: tuple[int, int], dtype: torch.dtype = torch.float64
) -> tuple[Supernet, Supernet]:
    plain = supernet(spec, size, dtype)
    planned = copy.deepcopy(plain)
    planned.plan(GroupedPlan)
    return plain, planned


def check_same_function(space: dict[str, Any], weights: str, size: tuple[int, int]) -> None:
    plain, planned = both(spec_of(space, weighting=weights), size)
    images = batch(size, torch.float64)
    loss, gradients = loss_and_gradients(plain, images)
    ours, our_gradients = loss_and_gradients(planned, images)
    assert float(ours) == pytest.approx(float(loss), rel=1e-9)
    scale = max(float(each.norm()) for each in gradients)
    for (label, _), one, other in zip(
        plain.named_parameters(), our_gradients, gradients, strict=True
    ):
        assert float((one - other).norm()) <= 1e-9 * float(other.norm()) + 1e-12 * scale, label
    for (label, one), other in zip(planned.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=label)


@pytest.mark.parametrize(
    ("weights", "size"), [("scalar", (15, 13)), ("max_w", (16, 16))], ids=["odd", "even"]
)
@pytest.mark.parametrize("name", SPACES)
def test_it_is_the_same_function(name: str, weights: str, size: tuple[int, int]) -> None:
    check_same_function(SPACES[name], weights, size)


@pytest.fixture
def _moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs together is moved into one storage, as on a GPU."""
    monkeypatch.setattr(adjacent, "is_movable", lambda _: True)


@pytest.mark.usefixtures("_moved")
@pytest.mark.parametrize("name", SPACES)
def test_it_is_the_same_function_of_what_lies_together(name: str) -> None:
    check_same_function(SPACES[name], "scalar", (9, 8))


@pytest.mark.usefixtures("_moved")
@pytest.mark.parametrize("name", SPACES)
def test_what_is_evaluated_together_lies_together(name: str) -> None:
    plain, planned = both(spec_of(SPACES[name]), (9, 8))
    images = batch((9, 8), torch.float64)
    for network in (plain, planned):
        loss_and_gradients(network, images)
    places = [each.data_ptr() for each in planned.buffers()]
    with torch.no_grad(), Names() as names:
        ours = planned.eval()(images.images_nchw)
    torch.testing.assert_close(ours, plain.eval()(images.images_nchw), rtol=1e-9, atol=1e-12)
    assert [each.data_ptr() for each in planned.buffers()] == places
    # Sums are stacked here, and weights that are computed; statistics of channels are not.
    assert all(len(shape) != 2 for shape in names.stacked)


@pytest.mark.parametrize("name", SPACES)
def test_it_evaluates_by_the_running_statistics_of_each(name: str) -> None:
    plain, planned = both(spec_of(SPACES[name]), (9, 8))
    images_nchw = batch((9, 8), torch.float64).images_nchw
    with torch.no_grad():
        for one, other in zip(plain.buffers(), planned.buffers(), strict=True):
            if one.is_floating_point():
                one.copy_(torch.rand_like(one) + 0.5)
                other.copy_(one)
        before = [each.clone() for each in planned.buffers()]
        expected = plain.eval()(images_nchw)
        with Calls() as calls:
            ours = planned.eval()(images_nchw)
        with Calls() as plain_calls:
            plain(images_nchw)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert calls.count < plain_calls.count
    for one, other in zip(planned.buffers(), before, strict=True):
        assert torch.equal(one, other)
    # There are no gradients by known statistics: who wants some gets the plain form.
    assert planned(images_nchw).requires_grad


@pytest.mark.parametrize("name", ["sharp_darts", "hypercuboid"])
def test_wide_groups_are_convolved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_arithmetic, "WIDE", 1)
    check_same_function(SPACES[name], "scalar", (12, 12))


@settings(max_examples=10, deadline=None)
@given(
    space=cell_spaces(),
    order=st.sampled_from(["first", "second"]),
    weights=st.sampled_from(["scalar", "max_w"]),
    size=st.tuples(st.integers(8, 13), st.integers(8, 13)),
)
def test_a_step_of_any_cell_space_is_the_same(
    space: dict[str, Any], order: str, weights: str, size: tuple[int, int]
) -> None:
    spec = spec_of(space, order=order, weighting=weights)
    networks = both(spec, size)
    for network in networks:
        step = BilevelStep(network, spec.algorithm, spec.training)
        step(batch(size, torch.float64, "train"), batch(size, torch.float64, "validation"))
    plain, planned = networks
    # The finite difference of the second order divides differences of gradients by a small number.
    tolerance = 1e-9 if order == "first" else 1e-6
    assert distance(list(planned.parameters()), list(plain.parameters())) < tolerance
    assert distance(buffers(planned), buffers(plain)) < tolerance


@pytest.mark.parametrize("name", ["darts", "hypercuboid"])
def test_single_precision(name: str) -> None:
    size = (16, 16)
    plain, planned = both(spec_of(SPACES[name], weighting="max_w"), size, torch.float32)
    images = batch(size, torch.float32)
    loss, gradients = loss_and_gradients(plain, images)
    ours, our_gradients = loss_and_gradients(planned, images)
    assert float(ours) == pytest.approx(float(loss), rel=1e-4)
    assert distance(our_gradients, gradients) < 1e-4
    assert distance(buffers(planned), buffers(plain)) < 1e-4


@pytest.mark.parametrize("name", ["darts", "hypercuboid"])
def test_autocast_keeps_statistics_in_single_precision(name: str) -> None:
    size = (16, 16)
    plain, planned = both(spec_of(SPACES[name]), size, torch.float32)
    images = batch(size, torch.float32)
    exact = copy.deepcopy(plain)
    _, of_exact = loss_and_gradients(exact, images)
    seen: list[torch.dtype] = []
    of_forms = []
    for network in (plain, planned):
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits_nk = network(images.images_nchw)
        loss = functional.cross_entropy(logits_nk.float(), images.labels_n)
        of_forms.append(torch.autograd.grad(loss, list(network.parameters())))
        assert all(each.dtype != torch.bfloat16 for each in network.buffers())
    assert seen == [torch.bfloat16] * 2
    # As near to what single precision says as the plain form is.
    of_plain, of_planned = of_forms
    assert distance(of_planned, of_exact) < 1.5 * distance(of_plain, of_exact)
    assert distance(buffers(planned), buffers(exact)) < 1.5 * distance(
        buffers(plain), buffers(exact)
    )


def test_there_are_second_derivatives() -> None:
    size = (12, 12)
    derivatives = []
    for network in both(spec_of(SPACES["darts"]), size):
        images = batch(size, torch.float64)
        loss = functional.cross_entropy(network(images.images_nchw), images.labels_n)
        alphas = network.architecture_parameters()
        slopes = torch.autograd.grad(loss, alphas, create_graph=True)
        length = sum((slope.square().sum() for slope in slopes), torch.zeros(()))
        derivatives.append(torch.autograd.grad(length, network.weight_parameters()[:8]))
    assert distance(*derivatives) < 1e-9


@pytest.mark.parametrize("name", ["darts", "hypercuboid"])
def test_states_go_from_one_form_to_the_other(name: str) -> None:
    size = (12, 12)
    plain, planned = both(spec_of(SPACES[name]), size)
    images = batch(size, torch.float64).images_nchw
    planned(images)
    plain.load_state_dict(planned.state_dict())
    assert torch.equal(plain.eval()(images), planned.eval()(images))
    assert list(plain.state_dict()) == list(planned.state_dict())


def test_any_module_takes_part_in_a_plan() -> None:
    channels = 4
    modules = nn.ModuleList(operations(channels)).double().train()
    x_nchw = torch.randn(3, channels, 12, 12, dtype=torch.float64, generator=stream(0, "x"))
    multipliers_k = torch.rand(len(modules), dtype=torch.float64, generator=stream(0, "k"))
    for each in (x_nchw, multipliers_k):
        each.requires_grad_()
    theirs = copy.deepcopy(modules)
    expected_nchw = torch.stack(
        [m * operation(x_nchw) for m, operation in zip(multipliers_k, theirs, strict=True)]
    ).sum(0)
    statistics = RunningStatistics()
    plan = GroupedPlan([Term("x", "y", index, each) for index, each in enumerate(modules)])
    shared = Shared(statistics, is_dense=True)
    shared.add("x", x_nchw)
    plan(shared, Multipliers([plan]).of(multipliers_k)[0], statistics)
    sum_nchw = shared.get("y")
    statistics.write()
    torch.testing.assert_close(sum_nchw, expected_nchw, rtol=1e-9, atol=1e-12)
    weight_nchw = torch.randn(sum_nchw.shape, dtype=torch.float64, generator=stream(0, "g"))
    ours = torch.autograd.grad(
        sum_nchw, [x_nchw, multipliers_k, *modules.parameters()], weight_nchw
    )
    expected = torch.autograd.grad(
        expected_nchw, [x_nchw, multipliers_k, *theirs.parameters()], weight_nchw
    )
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(modules.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


class Calls(TorchDispatchMode):
    """Counts the operations that are kernels of their own on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


class Names(TorchDispatchMode):
    """Notes the shapes of what is stacked."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stacked: list[torch.Size] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.stack.default:
            self.stacked.append(result.shape)
        return result


@pytest.mark.parametrize(
    "layers",
    [
        [nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)],
        [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(5, 2, 2), nn.Tanh(), nn.AvgPool2d(2)],
        [nn.Tanh()],
        [],
    ],
    ids=["all at once", "windows of several sizes", "neither", "the state itself"],
)
def test_what_is_read_of_a_state_is_made_together(layers: list[nn.Module]) -> None:
    x_nchw = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    norms = [nn.BatchNorm2d(3, affine=False).double() for _ in layers]
    # The last one goes without a normalisation.
    prefixes = [(layer, norm) for layer, norm in zip(layers[:-1], norms, strict=False)]
    prefixes += [(layer,) for layer in layers[-1:]]  # type: ignore[misc]
    statistics = RunningStatistics()
    shared = Shared(statistics, is_dense=True)
    shared.add("x", x_nchw)
    shared.look({"x": [*prefixes, ()]})
    found = [shared.get("x", prefix) for prefix in prefixes]
    parts = [shared.part("x", prefix) for prefix in prefixes]
    expected = [nn.Sequential(*copy.deepcopy(prefix))(x_nchw) for prefix in prefixes]
    for ours, part, other in zip(found, parts, expected, strict=True):
        torch.testing.assert_close(ours, other)
        torch.testing.assert_close(part.images_nkchw.squeeze(1), other)
    torch.testing.assert_close(shared.get("x"), x_nchw)
    if found:
        gradients = [
            torch.autograd.grad(torch.cat([each.flatten() for each in some]).square().sum(), x_nchw)
            for some in (found, expected)
        ]
        torch.testing.assert_close(*gradients)


def test_it_calls_far_fewer_kernels() -> None:
    spec = spec_of({"kind": "sharp_darts", "channels": 2, "cells": 3, "nodes": 4})
    counts = []
    for network in both(spec, (8, 8), torch.float32):
        with Calls() as calls:
            loss_and_gradients(network, batch((8, 8), torch.float32))
        counts.append(calls.count)
    assert counts[1] < counts[0] / 3


def test_each_device_has_its_form() -> None:
    assert planner_for(torch.device("cuda")) is GroupedPlan
    assert planner_for(torch.device("cpu")) is Plan


def test_one_value_for_a_channel_is_refused() -> None:
    _, planned = both(spec_of(SPACES["hypercuboid"]), (2, 2))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        planned(torch.zeros(1, 3, 2, 2, dtype=torch.float64))


def test_stacks_join_what_lies_side_by_side() -> None:
    a, b = torch.rand(2, 3, 1, 1), torch.rand(2, 3, 1, 1)
    stacks = Stacks([a, a, b, a])
    assert stacks.shape(2) == (3, 1, 1)
    assert torch.equal(stacks.gather([0, 1, 2]), torch.stack([a, a, b], dim=1))
    assert stacks.gather([0, 1, 2]) is stacks.gather([0, 3, 2])
    results_nkchw = torch.rand(2, 3, 5, 1, 1)
    stacks.put_apart([[2], [0, 1]], results_nkchw)
    assert torch.equal(stacks.gather([0, 1]), results_nkchw[:, 1:])
    assert torch.equal(stacks.gather([1, 2]), results_nkchw[:, [2, 0]])
    assert stacks.gather([0, 1]).data_ptr() == results_nkchw[:, 1:].data_ptr()

    def total(indices: list[int]) -> Tensor:
        return stacks.gather(indices).sum()

    torch.testing.assert_close(total([0, 1]) + total([2]), results_nkchw.sum())


@pytest.mark.parametrize("trains", [True, False])
def test_what_is_computed_plainly_is_so_in_training_and_evaluation(trains: bool) -> None:
    norms = [nn.BatchNorm2d(3, momentum=momentum).train(trains) for momentum in (None, 0.1)]
    plans = [GroupedPlan([Term("x", "y", 0, nn.Sequential(norm))]) for norm in norms]
    with torch.no_grad():
        assert [plan.applies for plan in plans] == [False, True]


def test_sums_of_several_plans_come_together() -> None:
    shared = Shared(RunningStatistics(), is_dense=True)
    x_nchw = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    shared.add("x", x_nchw)
    multipliers_k = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    for terms in (
        [Term("x", "a", 0, nn.Identity()), Term("x", "b", 1, nn.Identity())],
        [Term("x", "b", 2, nn.Identity())],
        [Term("x", "b", 3, nn.Identity()), Term("x", "c", 0, nn.Identity())],
    ):
        plan = GroupedPlan(terms)
        plan(shared, Multipliers([plan]).of(multipliers_k)[0], RunningStatistics())
    for name, times in (("b", 15), ("c", 2), ("a", 2)):
        torch.testing.assert_close(shared.get(name), times * x_nchw)


def test_features_are_mixed_with_those_of_their_type(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed: list[set[torch.dtype]] = []
    right = TorchArithmetic.mix

    def mix(
        self: TorchArithmetic,
        features: Sequence[Part],
        weights_tk: Tensor,
        base_ntchw: Tensor | None = None,
    ) -> Tensor:
        mixed.append({each.stack_nkchw.dtype for each in features})
        return right(self, features, weights_tk, base_ntchw)

    monkeypatch.setattr(TorchArithmetic, "mix", mix)
    rounding = nn.Sequential(ToHalfPrecision())
    operations = [nn.Identity(), rounding, nn.Identity(), copy.deepcopy(rounding)]
    plan = GroupedPlan([Term("x", "y", index, each) for index, each in enumerate(operations)])
    shared = Shared(RunningStatistics(), is_dense=True)
    x_nchw = torch.randn(2, 3, 4, 4, generator=stream(0, "x"))
    shared.add("x", x_nchw)
    multipliers_k = torch.tensor([2.0, 3.0, 5.0, 7.0])
    plan(shared, Multipliers([plan]).of(multipliers_k)[0], RunningStatistics())
    assert mixed == [{torch.float32}, {torch.bfloat16}]
    expected_nchw = 7 * x_nchw + 3 * x_nchw.bfloat16() + 7 * x_nchw.bfloat16()
    torch.testing.assert_close(shared.get("y"), expected_nchw, rtol=1e-2, atol=1e-2)


class ToHalfPrecision(nn.Module):
    def forward(self, x_nchw: Tensor) -> Tensor:
        return x_nchw.bfloat16()
