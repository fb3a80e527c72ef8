"""The planned relaxation against the plain one, which is the oracle."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from search_core import weighting
from search_core.bilevel import BilevelStep
from search_core.convolutions import FactorizedReduce, ReluConvNorm
from search_core.data import LabelledImages
from search_core.layers import GroupNorm
from search_core.primitives import REGISTRY, Slot
from search_core.randomness import stream
from search_core.relaxation import Multipliers, Plan, RunningStatistics, Shared, Term, chains
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec
from search_core.spec.primitives import PRIMITIVES, Family
from search_core.supernet import Supernet

CLASSES = 5
CELLS = {"channels": 4, "cells": 3, "nodes": 2}
CUBOID: dict[str, Any] = {
    "kind": "hypercuboid",
    "axes": {
        "channels": [4, 6],
        "operation": ["sharp_sep_conv", "resizable_pool", "skip_connect", "conv"],
        "dilation": [1, 2],
        "kernel_size": [3, 5],
    },
    "levels": 1,
    "strides": [1, 2],
    "final_channels": 8,
}
SPACES: dict[str, dict[str, Any]] = {
    "darts": {"kind": "darts", **CELLS},
    "sharp_darts": {"kind": "sharp_darts", **CELLS},
    "sharper_darts": {"kind": "sharper_darts", **CELLS},
    "every darts primitive": {"kind": "darts", **CELLS, "primitives": list(PRIMITIVES["darts"])},
    "every sharp primitive": {
        "kind": "sharp_darts",
        **CELLS,
        "primitives": list(PRIMITIVES["sharp"]),
    },
    "hypercuboid": CUBOID,
}


FAMILIES: list[tuple[str, Family]] = [("darts", "darts"), ("sharp_darts", "sharp")]


def spec_of(space: dict[str, Any], **algorithm: Any) -> SearchSpec:
    return SearchSpec.model_validate(
        {"space": space, "dataset": {"name": "synthetic"}, "algorithm": algorithm}
    )


def supernet(spec: SearchSpec, size: tuple[int, int], dtype: torch.dtype) -> Supernet:
    network = build_supernet(
        spec.space,
        (3, *size),
        CLASSES,
        weighting=weighting.from_spec(spec.algorithm),
        weight_generator=stream(1, "weights"),
        alpha_generator=stream(1, "alphas"),
    ).to(dtype)
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.mul_(300)
    return network.train()


def batch(size: tuple[int, int], dtype: torch.dtype, name: str = "images") -> LabelledImages:
    generator = stream(2, name)
    return LabelledImages(
        torch.randn((5, 3, *size), generator=generator).to(dtype),
        torch.randint(CLASSES, (5,), generator=generator),
    )


def both(spec: SearchSpec, size: tuple[int, int], dtype: torch.dtype) -> tuple[Supernet, Supernet]:
    plain = supernet(spec, size, dtype)
    planned = copy.deepcopy(plain)
    planned.plan()
    return plain, planned


def loss_and_gradients(network: Supernet, images: LabelledImages) -> tuple[Tensor, list[Tensor]]:
    loss = functional.cross_entropy(network(images.images_nchw), images.labels_n)
    parameters = list(network.parameters())
    return loss.detach(), list(torch.autograd.grad(loss, parameters, materialize_grads=True))


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Relative, of all together."""
    with torch.no_grad():
        differences = [(a - b).norm() for a, b in zip(ours, theirs, strict=True)]
        sizes = [each.norm() for each in theirs]
        return float(torch.stack(differences).norm() / torch.stack(sizes).norm())


def buffers(network: Supernet) -> list[Tensor]:
    return [each.double() for each in network.buffers()]


@pytest.mark.parametrize("size", [(16, 16), (15, 13)], ids=["even", "odd"])
@pytest.mark.parametrize("weights", ["scalar", "max_w"])
@pytest.mark.parametrize("name", SPACES)
def test_it_is_the_same_function(name: str, weights: str, size: tuple[int, int]) -> None:
    plain, planned = both(spec_of(SPACES[name], weighting=weights), size, torch.float64)
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


@pytest.mark.parametrize("name", SPACES)
def test_it_is_the_same_function_in_single_precision(name: str) -> None:
    size = (16, 16)
    plain, planned = both(spec_of(SPACES[name], weighting="max_w"), size, torch.float32)
    errors = []
    for number in range(4):
        images = batch(size, torch.float32, f"images {number}")
        loss, gradients = loss_and_gradients(plain, images)
        ours, our_gradients = loss_and_gradients(planned, images)
        errors.append((distance(our_gradients, gradients), abs(float(ours / loss) - 1)))
    # Of these thousands of values one may be rounded to the other side of a ReLU's kink, by either
    # form as often, and the gradient jumps there. It does not in all of the batches.
    assert min(errors) < (1e-4, 1e-4)
    assert max(error for _, error in errors) < 1e-4
    assert distance(buffers(planned), buffers(plain)) < 1e-4


@st.composite
def cell_spaces(draw: st.DrawFn) -> dict[str, Any]:
    kind, family = draw(st.sampled_from(FAMILIES))
    names = draw(st.lists(st.sampled_from(PRIMITIVES[family]), min_size=2, max_size=4, unique=True))
    return {
        "kind": kind,
        "channels": draw(st.integers(2, 5)),
        "cells": draw(st.integers(3, 4)),
        "nodes": draw(st.integers(1, 3)),
        "primitives": names if set(names) != {"none"} else [*names, "skip_connect"],
    }


@settings(max_examples=15, deadline=None)
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
    networks = both(spec, size, torch.float64)
    for network in networks:
        step = BilevelStep(network, spec.algorithm, spec.training)
        step(batch(size, torch.float64, "train"), batch(size, torch.float64, "validation"))
    plain, planned = networks
    # The finite difference of the second order divides differences of gradients by a small number.
    tolerance = 1e-9 if order == "first" else 1e-6
    assert distance(list(planned.parameters()), list(plain.parameters())) < tolerance
    assert distance(buffers(planned), buffers(plain)) < tolerance


@pytest.mark.parametrize("name", ["darts", "hypercuboid"])
def test_states_go_from_one_form_to_the_other(name: str) -> None:
    size = (12, 12)
    plain, planned = both(spec_of(SPACES[name]), size, torch.float64)
    images = batch(size, torch.float64).images_nchw
    planned(images)
    plain.load_state_dict(planned.state_dict())
    assert torch.equal(plain.eval()(images), planned.eval()(images))
    assert list(plain.state_dict()) == list(planned.state_dict())


def test_statistics_are_left_alone_where_they_are_not_tracked() -> None:
    spec = spec_of(SPACES["darts"])
    _, planned = both(spec, (12, 12), torch.float64)
    before = [each.clone() for each in planned.buffers()]
    step = BilevelStep(planned, spec.algorithm, spec.training)
    train, validation = batch((12, 12), torch.float64), batch((12, 12), torch.float64, "validation")
    step.train_alphas(train, validation)
    assert all(map(torch.equal, before, planned.buffers()))
    step.train_weights(train)
    assert not all(map(torch.equal, before, planned.buffers()))


class Doubled(nn.Module):
    """Describes nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=True)

    def forward(self, x_nchw: Tensor) -> Tensor:
        doubled_nchw: Tensor = 2 * self.convolution(x_nchw)
        return doubled_nchw


def operations(channels: int) -> list[nn.Module]:
    def stages(*activations: nn.Module, dilation: int = 1, kernel: int = 3) -> nn.Sequential:
        padding = dilation * (kernel // 2)
        layers: list[nn.Module] = []
        for activation in activations:
            layers += [
                activation,
                nn.Conv2d(
                    channels,
                    channels,
                    kernel,
                    padding=padding,
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
            ]
        return nn.Sequential(*layers)

    return [
        Doubled(channels),
        stages(nn.ReLU(), nn.ReLU(), nn.ReLU()),
        stages(nn.ReLU(), nn.SiLU()),
        stages(nn.ReLU(), nn.ReLU(), dilation=3),
        stages(nn.ReLU(), nn.ReLU(), dilation=2, kernel=5),
        stages(nn.ReLU(), kernel=7),
        nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *stages(nn.ReLU(), dilation=2)),
        nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1), GroupNorm(2, channels)),
        nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)),
        nn.Identity(),
    ]


def test_any_module_takes_part_in_a_plan() -> None:
    channels = 4
    modules = nn.ModuleList(operations(channels)).double().train()
    x_nchw = torch.randn(3, channels, 12, 12, dtype=torch.float64, generator=stream(0, "x"))
    multipliers_k = torch.rand(len(modules), dtype=torch.float64, generator=stream(0, "k"))
    for each in (x_nchw, multipliers_k):
        each.requires_grad_()
    inputs = [x_nchw, multipliers_k, *modules.parameters()]
    theirs = copy.deepcopy(modules)
    expected_nchw = torch.stack(
        [m * operation(x_nchw) for m, operation in zip(multipliers_k, theirs, strict=True)]
    ).sum(0)
    statistics = RunningStatistics()
    shared = Shared(statistics)
    shared.add("x", x_nchw)
    plan = Plan([Term("x", "y", index, each) for index, each in enumerate(modules)])
    plan(shared, Multipliers([plan]).of(multipliers_k)[0], statistics)
    sum_nchw = shared.get("y")
    statistics.write()
    torch.testing.assert_close(sum_nchw, expected_nchw, rtol=1e-9, atol=1e-12)
    weight_nchw = torch.randn(sum_nchw.shape, dtype=torch.float64, generator=stream(0, "g"))
    ours = torch.autograd.grad(sum_nchw, inputs, weight_nchw)
    expected = torch.autograd.grad(
        expected_nchw, [x_nchw, multipliers_k, *theirs.parameters()], weight_nchw
    )
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(modules.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("family", "name"), [key for key in REGISTRY if key[1] != "none"])
def test_primitives_are_planned_by_what_they_are_made_of(family: Any, name: str) -> None:
    chain = chains.chain_of(REGISTRY[family, name](Slot(4, 4, stride=1, affine=False)))
    reduced = chains.chain_of(REGISTRY[family, name](Slot(4, 4, stride=2, affine=False)))
    if name == "skip_connect":
        assert not chain.stages
        assert len(reduced.stages) == 1
        assert not reduced.calls
    separable = family == "sharp" or not name.startswith("dil")
    if "sep" in name or "flood" in name or "choke" in name or name.startswith("dil"):
        assert [stage.depthwise is not None for stage in chain.stages] == [True] * (1 + separable)
        assert not chain.calls
    else:
        assert not chain.stages


def test_a_reduction_that_does_something_else_is_called_as_it_is() -> None:
    class Doubled(FactorizedReduce):
        def forward(self, x_nchw: Tensor) -> Tensor:
            return 2 * super().forward(x_nchw)

    assert chains.chain_of(FactorizedReduce(4, 4, affine=False)).stages
    assert not chains.chain_of(Doubled(4, 4, affine=False)).stages


def test_a_sum_depends_on_what_it_is_computed_of_and_on_nothing_else() -> None:
    x_nchw, y_nchw = (drawn_images(name).requires_grad_(name == "y") for name in "xy")
    operations = [ReluConvNorm(4, 4, affine=False).double().requires_grad_(False) for _ in "xy"]
    statistics = RunningStatistics()
    shared = Shared(statistics)
    shared.add("x", x_nchw)
    shared.add("y", y_nchw)
    plan = Plan([Term("x", 0, 0, operations[0]), Term("y", 1, 1, operations[1])])
    plan(shared, Multipliers([plan]).of(torch.ones(2, dtype=torch.float64))[0], statistics)
    assert not shared.get(0).requires_grad
    weight_nchw = drawn_images("weight")
    (ours,) = torch.autograd.grad(shared.get(1), y_nchw, weight_nchw)
    (expected,) = torch.autograd.grad(operations[1](y_nchw), y_nchw, weight_nchw)
    torch.testing.assert_close(ours, expected)


def drawn_images(name: str) -> Tensor:
    return torch.randn(3, 4, 6, 6, dtype=torch.float64, generator=stream(0, name))


def test_a_module_with_layers_of_its_own_is_called_as_it_is() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False)])

        def forward(self, x_nchw: Tensor) -> Tensor:
            for layer in self.layers:
                x_nchw = x_nchw + layer(x_nchw)
            return x_nchw

    residual = Residual()
    assert chains.chain_of(nn.Sequential(residual, nn.BatchNorm2d(4))).calls[0] is residual


def test_statistics_are_recorded_once_for_each_operation() -> None:
    def operation(stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.BatchNorm2d(4, affine=False),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride, padding=2, dilation=2, groups=4, bias=False),
            nn.Conv2d(4, 4, 1, bias=False),
            nn.BatchNorm2d(4),
        )

    for stride, size in ((1, 12), (1, 11), (2, 12)):
        modules = nn.ModuleList([operation(stride), operation(stride)]).double()
        theirs = copy.deepcopy(modules)
        x_nchw = torch.randn(2, 4, size, size, dtype=torch.float64, generator=stream(0, "x"))
        for each in theirs:
            each(x_nchw)
        statistics = RunningStatistics()
        shared = Shared(statistics)
        shared.add("x", x_nchw)
        plan = Plan([Term("x", "y", index, each) for index, each in enumerate(modules)])
        plan(shared, Multipliers([plan]).of(torch.ones(2, dtype=torch.float64))[0], statistics)
        statistics.write()
        for one, other in zip(modules.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_a_plan_does_not_know_is_computed_plainly() -> None:
    size = (12, 12)
    plain, planned = both(spec_of(SPACES["darts"]), size, torch.float64)
    images = batch(size, torch.float64).images_nchw
    for network in (plain, planned):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    assert torch.equal(planned(images), plain(images))
    for network in (plain, planned):
        for module in network.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
    assert torch.equal(planned(images), plain(images))
    assert all(map(torch.equal, planned.buffers(), plain.buffers()))


def test_second_derivatives_are_refused() -> None:
    size = (12, 12)
    _, planned = both(spec_of(SPACES["darts"]), size, torch.float64)
    images = batch(size, torch.float64)
    loss = functional.cross_entropy(planned(images.images_nchw), images.labels_n)
    with pytest.raises(RuntimeError, match="choose the relaxation 'plain'"):
        torch.autograd.grad(loss, planned.architecture_parameters(), create_graph=True)


def test_one_value_for_a_channel_is_refused() -> None:
    statistics = RunningStatistics()
    with pytest.raises(ValueError, match="larger batches"):
        statistics.record_biased(nn.BatchNorm2d(1), torch.zeros(1), torch.zeros(1), 1)


@pytest.mark.parametrize("tracked", [True, False])
def test_one_value_for_a_channel_is_refused_recorded_or_not(tracked: bool) -> None:
    norm = nn.BatchNorm2d(4)
    norm.track_running_stats = tracked
    operation = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), norm)
    plan = Plan([Term("x", "y", 0, operation)])
    statistics = RunningStatistics()
    for images in (2, 1):
        shared = Shared(statistics)
        shared.add("x", torch.randn(images, 4, 1, 1, generator=stream(0, "x")))
        with nullcontext() if images > 1 else pytest.raises(ValueError, match="larger batches"):
            plan(shared, torch.ones(1), statistics)


def test_a_weight_may_be_another_one_later() -> None:
    operation = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
    plan = Plan([Term("x", "y", 0, operation)])
    x_nchw = torch.randn(3, 4, 5, 5, generator=stream(0, "x"))
    for name in ("first", "second"):
        convolution = operation[0]
        assert isinstance(convolution, nn.Conv2d)
        convolution.weight = nn.Parameter(torch.randn(4, 4, 1, 1, generator=stream(0, name)))
        shared = Shared(RunningStatistics())
        shared.add("x", x_nchw)
        plan(shared, torch.ones(1), RunningStatistics())
        torch.testing.assert_close(shared.get("y"), operation(x_nchw))


@pytest.mark.parametrize("normalisation", ["batch", "group"])
def test_a_cpu_evaluates_plainly(normalisation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {**CUBOID, "axes": {**CUBOID["axes"], "normalisation": [normalisation]}}
    network = supernet(spec_of(space), (8, 8), torch.float32)
    network.plan()
    monkeypatch.setattr(Plan, "__call__", pytest.fail)
    with torch.no_grad():
        network.eval()(batch((8, 8), torch.float32).images_nchw)
