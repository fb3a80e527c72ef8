"""Stacked seeds against each seed alone, which is the oracle."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from search_core import graphs, optimizers, primitives, search, weighting
from search_core.bilevel import BatchResult, BilevelStep
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.graphs import Repeated, StaticStep
from search_core.pace import reproducible
from search_core.primitives import Slot
from search_core.randomness import stream
from search_core.reports import EpochReport
from search_core.search import SearchRun
from search_core.spaces import build_supernet
from search_core.spec import AlgorithmSpec, SearchSpec
from search_core.spec.primitives import PRIMITIVES
from search_core.stacking import StackedRun, orders
from search_core.stacking import step as stacked_steps
from search_core.stacking.networks import images_of, stack_supernets
from search_core.stacking.operations import EachAlone, stack
from search_core.stacking.orders import StackedBatch
from search_core.stacking.step import NotFiniteError, StackedStep
from search_core.supernet import CellSupernet, Supernet
from tests.search_core.full_precision import InFull
from tests.search_core.test_search import kill_after

SEEDS = (3, 5, 8)
CLASSES = 5
CELLS = {"channels": 4, "cells": 3, "nodes": 1}
SPACES: dict[str, dict[str, Any]] = {
    "darts": {"kind": "darts", **CELLS, "primitives": list(PRIMITIVES["darts"])},
    "sharp": {
        "kind": "sharp_darts",
        **CELLS,
        "choke_channels": 3,
        "primitives": list(PRIMITIVES["sharp"]),
    },
    "hypercuboid": {
        "kind": "hypercuboid",
        "axes": {
            "channels": [4, 6],
            "operation": ["sharp_sep_conv", "resizable_pool", "skip_connect", "conv"],
            "normalisation": ["batch", "group"],
        },
        "levels": 1,
        "strides": [1, 2],
        "final_channels": 8,
    },
}


def spec_of(space: dict[str, Any], **algorithm: Any) -> SearchSpec:
    return SearchSpec.model_validate(
        {
            "space": space,
            "dataset": {"name": "synthetic"},
            "algorithm": {"architecture_learning_rate": 0.1, **algorithm},
            # Some seeds' gradients are longer than this, some are not.
            "training": {"gradient_clip": 3.0, "learning_rate": 0.1},
        }
    )


def supernet(spec: SearchSpec, seed: int, dtype: torch.dtype = torch.float64) -> Supernet:
    network = build_supernet(
        spec.space,
        (3, 16, 16),
        CLASSES,
        weighting=weighting.from_spec(spec.algorithm),
        weight_generator=stream(seed, "weights"),
        alpha_generator=stream(seed, "alphas"),
    ).to(dtype)
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.mul_(300)
    return network.train()


def batch(name: str, size: tuple[int, int] = (16, 16)) -> LabelledImages:
    generator = stream(2, name)
    return LabelledImages(
        torch.randn((5, 3, *size), generator=generator).double(),
        torch.randint(CLASSES, (5,), generator=generator),
    )


def batches(purpose: str, size: tuple[int, int] = (16, 16)) -> list[LabelledImages]:
    return [batch(f"{purpose} of {seed}", size) for seed in SEEDS]


def assert_same_state(alone: nn.Module, stacked: nn.Module) -> None:
    theirs = stacked.state_dict()
    scale = max(float(each.double().norm()) for each in alone.state_dict().values())
    for name, value in alone.state_dict().items():
        difference = float((theirs[name].double() - value.double()).norm())
        assert difference <= 1e-9 * float(value.double().norm()) + 1e-13 * scale, name


@pytest.mark.parametrize("size", [(16, 16), (15, 13)], ids=["even", "odd"])
@pytest.mark.parametrize("weights", ["scalar", "max_w"])
@pytest.mark.parametrize("name", SPACES)
def test_each_has_the_loss_gradients_and_statistics_that_it_has_alone(
    name: str, weights: str, size: tuple[int, int]
) -> None:
    spec = spec_of(SPACES[name], weighting=weights)
    alone = [supernet(spec, seed) for seed in SEEDS]
    members = copy.deepcopy(alone)
    stacked = stack_supernets(members)
    images = batches("images", size)
    together = StackedBatch.of(images)
    logits_nsk = stacked(together.images)
    stacked.count_batch()
    parameters = list(stacked.parameters())
    losses = [
        functional.cross_entropy(logits_nsk[:, index], each.labels_n)
        for index, each in enumerate(images)
    ]
    theirs = torch.autograd.grad(torch.stack(losses).sum(), parameters)
    for index, (network, own) in enumerate(zip(alone, images, strict=True)):
        loss = functional.cross_entropy(network(own.images_nchw), own.labels_n)
        assert losses[index].item() == pytest.approx(loss.item(), rel=1e-9)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        scale = max(float(each.norm()) for each in gradients)
        for (label, _), one, other in zip(
            network.named_parameters(), theirs, gradients, strict=True
        ):
            difference = float((one[index] - other).norm())
            assert difference <= 1e-9 * float(other.norm()) + 1e-12 * scale, label
        assert_same_state(network, members[index])


def test_each_is_measured_as_it_is_alone() -> None:
    for space in SPACES.values():
        alone = [supernet(spec_of(space), seed).eval() for seed in SEEDS]
        stacked = stack_supernets(copy.deepcopy(alone)).eval()
        images = batches("images")
        logits_nsk = stacked(images_of([each.images_nchw for each in images]))
        for index, (network, own) in enumerate(zip(alone, images, strict=True)):
            torch.testing.assert_close(
                logits_nsk[:, index], network(own.images_nchw), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("darts", {"weighting": "max_w"}),
        ("sharp", {}),
        ("hypercuboid", {"weighting": "max_w", "detach_max": True, "cost_weight": 0.5}),
    ],
)
def test_steps_change_each_as_steps_alone_do(
    name: str, algorithm: dict[str, Any], order: str
) -> None:
    spec = spec_of(SPACES[name], order=order, **algorithm)
    alone = [BilevelStep(supernet(spec, seed), spec.algorithm, spec.training) for seed in SEEDS]
    members = copy.deepcopy(alone)
    stacked = StackedStep(members, spec.algorithm, spec.training)
    for number in range(3):
        train, validation = batches(f"training {number}"), batches(f"validation {number}")
        own = [step(*pair) for step, *pair in zip(alone, train, validation, strict=True)]
        stacked.train_alphas(StackedBatch.of(train), StackedBatch.of(validation))
        results = stacked.train_weights(StackedBatch.of(train))
        for result, expected in zip(results, own, strict=True):
            assert result.loss == pytest.approx(expected.loss, rel=1e-9)
            assert result.num_correct == expected.num_correct
    stacked.publish()
    for step, member in zip(alone, members, strict=True):
        assert_same_state(step.network, member.network)
        assert_same_moments(step, member)


def assert_same_moments(alone: BilevelStep, member: BilevelStep) -> None:
    for name in ("weight_optimizer", "architecture_optimizer"):
        states = [getattr(step, name).state_dict()["state"] for step in (alone, member)]
        assert states[0].keys() == states[1].keys()
        for index, moments in states[0].items():
            for key, value in moments.items():
                torch.testing.assert_close(
                    states[1][index][key], value, rtol=1e-9, atol=1e-12, msg=f"{name} {index} {key}"
                )


def test_the_finite_difference_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, in_full = spec_of(SPACES["darts"], order="second"), InFull()
    monkeypatch.setattr(orders, "in_full", in_full)
    members = [BilevelStep(supernet(spec, seed), spec.algorithm, spec.training) for seed in SEEDS]
    stacked = StackedStep(members, spec.algorithm, spec.training)
    passes: list[bool] = []

    def look(_: nn.Module, __: tuple[Tensor, ...], logits_nsk: Tensor) -> None:
        logits_nsk.register_hook(lambda _: passes.append(in_full.is_on))  # type: ignore[no-untyped-call]

    stacked.network.register_forward_hook(look)
    batch = StackedBatch.of(batches("images"))
    stacked.train_alphas(batch, batch)
    assert passes == [False, False, True, True]


def test_a_stack_goes_on_from_members_that_have_trained_alone() -> None:
    spec = spec_of(SPACES["darts"], order="second")
    alone = [BilevelStep(supernet(spec, seed), spec.algorithm, spec.training) for seed in SEEDS]
    for number in range(2):
        for step, *pair in zip(
            alone, batches(f"training {number}"), batches(f"validation {number}"), strict=True
        ):
            step(*pair)
    members = copy.deepcopy(alone)
    stacked = StackedStep(members, spec.algorithm, spec.training)
    train, validation = batches("training"), batches("validation")
    stacked.train_alphas(StackedBatch.of(train), StackedBatch.of(validation))
    stacked.train_weights(StackedBatch.of(train))
    stacked.publish()
    for step, member, *pair in zip(alone, members, train, validation, strict=True):
        step(*pair)
        assert_same_state(step.network, member.network)
        assert_same_moments(step, member)


def test_nothing_is_trained_where_one_is_not_finite() -> None:
    spec = spec_of(SPACES["darts"])
    members = [BilevelStep(supernet(spec, seed), spec.algorithm, spec.training) for seed in SEEDS]
    stacked = StackedStep(members, spec.algorithm, spec.training)
    before = [copy.deepcopy(dict(member.network.named_parameters())) for member in members]
    train, validation = batches("training"), batches("validation")
    validation[1].images_nchw[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError) as of_alphas:
        stacked.train_alphas(StackedBatch.of(train), StackedBatch.of(validation))
    assert not of_alphas.value.of_weights
    train[2].images_nchw[0, 0, 0, 0] = float("inf")
    with pytest.raises(NotFiniteError) as of_weights:
        stacked.train_weights(StackedBatch.of(train))
    assert of_weights.value.of_weights
    for member, values in zip(members, before, strict=True):
        for name, value in member.network.named_parameters():
            assert torch.equal(value, values[name])


class Shuffled(nn.Module):
    """A primitive of a user's own: nothing that a stack knows, with all sorts of state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1))
        self.inner = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x_nchw: Tensor) -> Tensor:
        mixed: Tensor = self.inner(x_nchw.flip(1)) * self.scale
        return mixed


def test_a_primitive_that_is_no_known_layer_is_called_for_each_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(slot: Slot) -> nn.Module:
        pool = nn.AvgPool2d(slot.stride, ceil_mode=True)
        return nn.Sequential(Shuffled(slot.in_channels), pool)

    monkeypatch.setitem(primitives.REGISTRY, ("darts", "conv_7x1_1x7"), build)
    spec = spec_of({"kind": "darts", **CELLS, "primitives": ["none", "conv_7x1_1x7"]})
    alone = [BilevelStep(supernet(spec, seed), spec.algorithm, spec.training) for seed in SEEDS]
    members = copy.deepcopy(alone)
    stacked = StackedStep(members, spec.algorithm, spec.training)
    assert any(isinstance(module, EachAlone) for module in stacked.network.modules())
    train, validation = batches("training"), batches("validation")
    stacked.train_alphas(StackedBatch.of(train), StackedBatch.of(validation))
    stacked.train_weights(StackedBatch.of(train))
    stacked.publish()
    for step, member, *pair in zip(alone, members, train, validation, strict=True):
        step(*pair)
        assert_same_state(step.network, member.network)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(4, momentum=None),
        nn.GroupNorm(2, 4, affine=False),
        nn.PixelShuffle(1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_without_a_stacked_form_is_called_for_each_alone(layer: nn.Module) -> None:
    assert isinstance(stack([layer, copy.deepcopy(layer)]), EachAlone)


class Unknown(CellSupernet):
    """A network of a space of a user's own."""


def test_a_network_without_a_stacked_form_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown cannot be stacked; leave"):
        stack_supernets([Unknown.__new__(Unknown) for _ in SEEDS])


SpecMaker = Callable[..., SearchSpec]


def run_alone(spec: SearchSpec, seed: int) -> tuple[SearchRun, list[EpochReport]]:
    run = SearchRun(spec, seed)
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    return run, reports


def run_stacked(runs: Sequence[SearchRun]) -> list[list[EpochReport]]:
    stacked = StackedRun(runs)
    reports: dict[SearchRun, list[EpochReport]] = {run: [] for run in runs}
    while stacked.runs:
        for run, outcome in stacked.run_epoch().items():
            assert isinstance(outcome, EpochReport)
            reports[run].append(outcome)
    return [reports[run] for run in runs]


def assert_same_results(reports: Sequence[EpochReport], expected: Sequence[EpochReport]) -> None:
    assert len(reports) == len(expected)
    for ours, theirs in zip(reports, expected, strict=True):
        assert (ours.epoch, ours.genotype) == (theirs.epoch, theirs.genotype)
        assert ours.metrics.keys() == theirs.metrics.keys()
        for name, value in reproducible(theirs.metrics).items():
            assert ours.metrics[name] == pytest.approx(value, rel=1e-2, abs=1e-2), name


def spoil(run: SearchRun) -> None:
    """Makes its logits no numbers."""
    assert isinstance(run.network, CellSupernet)
    with torch.no_grad():
        run.network.head.bias.fill_(float("nan"))


def tame(make_spec: SpecMaker, **sections: Any) -> SearchSpec:
    """A search too short for the last digits of single precision to grow into the results."""
    merged: dict[str, Any] = {
        "algorithm": {"architecture_learning_rate": 0.001},
        "augmentation": {"cutout": 2},
        "training": {"learning_rate": 0.01},
    }
    return make_spec(**{**merged, **sections})


def test_a_stack_has_the_results_that_each_seed_has_alone(make_spec: SpecMaker) -> None:
    spec = tame(make_spec)
    reports = run_stacked([SearchRun(spec, seed) for seed in SEEDS])
    for seed, own in zip(SEEDS, reports, strict=True):
        assert_same_results(own, run_alone(spec, seed)[1])


def test_a_gpus_stack_has_them_too(make_spec: SpecMaker, request: pytest.FixtureRequest) -> None:
    spec = tame(make_spec)
    expected = [run_alone(spec, seed)[1] for seed in SEEDS]
    request.getfixturevalue("_static_on_a_cpu")
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    for run in runs:
        kill_after(run, 1)  # Their sums begin in static steps.
    for own, theirs in zip(run_stacked(runs), expected, strict=True):
        assert_same_results(own, theirs)


@pytest.fixture
def _optimizers_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has runs train alone as on a GPU, with optimizers that can be captured."""
    monkeypatch.setattr(search, "is_static", lambda *_: True)


@pytest.mark.usefixtures("_optimizers_of_a_gpu")
@pytest.mark.parametrize("kind", ["darts", "hypercuboid"])
def test_a_stack_leaves_optimizers_as_a_gpu_wants_them(make_spec: SpecMaker, kind: str) -> None:
    spec = tame(make_spec, space=SPACES[kind])
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    stacked = StackedRun(runs)
    stacked.run_epoch()
    assert stacked._step is not None
    assert isinstance(stacked._step.weight_optimizer.param_groups[0]["lr"], float)
    resumed = SearchRun(spec, SEEDS[0])
    state = runs[0].state_dict()
    moments = state["weight_optimizer"]
    for moment in moments.values():  # as a state may be that was written before
        if moment["momentum_buffer"].dim() == 2:
            moment["momentum_buffer"] = moment["momentum_buffer"].t().contiguous().t()
    resumed.load_state_dict(state)
    for run in (*runs, resumed):
        optimizer = run.step.weight_optimizer
        assert isinstance(optimizer.param_groups[0]["lr"], Tensor)
        for weight in run.network.weight_parameters():
            assert optimizer.state[weight]["momentum_buffer"].stride() == weight.stride()
    losses = [run.run_epoch().metrics["train_loss"] for run in (runs[0], resumed)]
    expected = run_alone(spec, SEEDS[0])[1][1].metrics["train_loss"]
    assert losses == pytest.approx([expected] * 2, rel=1e-2)


@pytest.mark.parametrize("capturable", [True, False])
def test_steps_are_counted_where_each_optimizer_counts_them(capturable: bool) -> None:
    with FakeTensorMode():
        own = [nn.Parameter(torch.empty(3, 4, device="cuda")) for _ in SEEDS]
        algorithm = AlgorithmSpec()
        members = [optimizers.for_alphas([p], algorithm, capturable=capturable) for p in own]
        together = nn.Parameter(torch.empty(len(SEEDS), 3, 4, device="cuda"))
        stacked = optimizers.for_alphas([together], algorithm, capturable=False)
        together.grad = torch.empty_like(together)
        # Its first moments.
        stacked._init_group(stacked.param_groups[0], [], [], [], [], [], [])  # type: ignore[no-untyped-call]
        stacked_steps._distribute(stacked, members)
        for member, parameter in zip(members, own, strict=True):
            state = member.state[parameter]
            assert state["step"].device.type == ("cuda" if capturable else "cpu")
            assert state["exp_avg"].device == parameter.device
        stacked_steps._collect(stacked, members)
        assert stacked.state[together]["step"].device.type == "cpu"


@pytest.mark.usefixtures("_optimizers_of_a_gpu")
def test_what_was_captured_alone_is_not_repeated_after_a_stack(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Graph:
        """Work on tensors where they were when it was captured, as a graph is."""

        def __init__(self, work: Callable[[], None]) -> None:
            self._work = work
            self._places = self._now()

        def replay(self) -> None:
            assert self._now() == self._places
            self._work()

        def _now(self) -> list[int]:
            return [weight.data_ptr() for weight in run.network.weight_parameters()]

    class Pretended(graphs.Workshop):
        def __init__(self, device: torch.device) -> None: ...

        def warm_up(self, work: Callable[[], None]) -> None:
            work()

        def capture(self, work: Callable[[], None]) -> Any:
            return Graph(work)

    def pretend(self: StaticStep) -> tuple[Repeated, Repeated]:
        workshop = Pretended(torch.device("cpu"))
        return (
            Repeated(self._train_alphas, workshop, pytest.fail),
            Repeated(self._train_weights, workshop, pytest.fail),
        )

    monkeypatch.setattr(graphs.StaticStep, "_halves", pretend)
    spec = tame(make_spec, training={"batch_size": 100, "epochs": 3})
    run, other = (SearchRun(spec, seed) for seed in SEEDS[:2])
    run.run_epoch()
    other.run_epoch()
    stacked = StackedRun([run, other])
    spoil(other)
    assert isinstance(stacked.run_epoch()[other], DivergedError)
    assert stacked.runs == [run]
    report = stacked.run_epoch()[run]
    assert isinstance(report, EpochReport)
    assert_same_results([report], [run_alone(spec, SEEDS[0])[1][2]])


def test_one_that_diverges_in_a_gpus_stack_ends_alone(
    make_spec: SpecMaker, request: pytest.FixtureRequest
) -> None:
    spec = tame(make_spec)
    expected = run_alone(spec, SEEDS[1])[1]
    request.getfixturevalue("_static_on_a_cpu")
    runs = [SearchRun(spec, seed) for seed in SEEDS[:2]]
    spoil(runs[0])
    stacked = StackedRun(runs)
    outcomes = stacked.run_epoch()
    error = outcomes[runs[0]]
    assert isinstance(error, DivergedError)
    assert "epoch 1, batch 1" in str(error)
    # The other one has made its second batch in static steps, which go on with its sums.
    reports = [outcomes[runs[1]], stacked.run_epoch()[runs[1]]]
    assert_same_results([each for each in reports if isinstance(each, EpochReport)], expected)


def test_alone_and_stacked_go_on_from_each_others_states(make_spec: SpecMaker) -> None:
    spec = tame(make_spec)
    first = StackedRun([SearchRun(spec, seed) for seed in SEEDS])
    first.run_epoch()
    for seed, member in zip(SEEDS, first.runs, strict=True):
        alone = SearchRun(spec, seed)
        alone.load_state_dict(member.state_dict())
        assert_same_results([alone.run_epoch()], [run_alone(spec, seed)[1][1]])

    begun = [SearchRun(spec, seed) for seed in SEEDS]
    for run in begun:
        run.run_epoch()
    resumed = [SearchRun(spec, seed) for seed in SEEDS]
    for one, other in zip(resumed, begun, strict=True):
        one.load_state_dict(other.state_dict())
    for seed, own in zip(SEEDS, run_stacked(resumed), strict=True):
        assert_same_results(own, run_alone(spec, seed)[1][1:])


def test_a_resumed_stack_has_the_same_bits(make_spec: SpecMaker) -> None:
    spec = make_spec(algorithm={"order": "second"})
    whole = [SearchRun(spec, seed) for seed in SEEDS]
    run_stacked(whole)
    interrupted = StackedRun([SearchRun(spec, seed) for seed in SEEDS])
    interrupted.run_epoch()
    resumed = [SearchRun(spec, seed) for seed in SEEDS]
    for one, other in zip(resumed, interrupted.runs, strict=True):
        one.load_state_dict(other.state_dict())
    run_stacked(resumed)
    for one, other in zip(resumed, whole, strict=True):
        ours, theirs = one.state_dict()["network"], other.state_dict()["network"]
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("where", ["alphas", "weights", "measuring"])
def test_one_that_diverges_ends_alone(make_spec: SpecMaker, where: str) -> None:
    spec = tame(make_spec)
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    stacked = StackedRun(runs)
    stacked.run_epoch()
    # In the second epoch, and in its second batch where it is one of training.
    spoilt = runs[1]
    if where == "measuring":
        take = spoilt.take

        def spoil_before_measuring(result: BatchResult, seconds: float = 0.0) -> None:
            take(result, seconds)
            if not spoilt.batches_left:
                spoil(spoilt)

        spoilt.take = spoil_before_measuring  # type: ignore[method-assign]
    else:
        draw = spoilt.draw

        def spoilt_draw() -> tuple[LabelledImages, LabelledImages]:
            train, validation = draw()
            if spoilt.place[1] == 1:
                images = validation if where == "alphas" else train
                images.images_nchw.fill_(float("nan"))
            return train, validation

        spoilt.draw = spoilt_draw  # type: ignore[method-assign]
    outcomes = stacked.run_epoch()
    error = outcomes[spoilt]
    assert isinstance(error, DivergedError)
    place = "end of epoch 2" if where == "measuring" else "epoch 2, batch 2"
    assert place in str(error)
    assert "try a learning_rate below" in str(error)
    assert stacked.runs == []  # the others are finished
    for index in (0, 2):
        report = outcomes[runs[index]]
        assert isinstance(report, EpochReport)
        assert_same_results([report], [run_alone(spec, SEEDS[index])[1][1]])


def test_the_last_one_left_goes_on_alone(make_spec: SpecMaker) -> None:
    spec = tame(make_spec)
    runs = [SearchRun(spec, seed) for seed in SEEDS[:2]]
    spoil(runs[0])
    stacked = StackedRun(runs)
    outcomes = [stacked.run_epoch()[runs[1]]]
    assert stacked.runs == runs[1:]
    outcomes.append(stacked.run_epoch()[runs[1]])
    reports = [each for each in outcomes if isinstance(each, EpochReport)]
    assert_same_results(reports, run_alone(spec, SEEDS[1])[1])


def test_one_that_stops_early_leaves_the_stack(make_spec: SpecMaker) -> None:
    spec = tame(make_spec, algorithm={"stop_on_collapse_epochs": 1}, training={"epochs": 3})
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    collapsed = runs[2]
    skip = spec.space.primitives.index("skip_connect")  # type: ignore[union-attr]
    with torch.no_grad():
        collapsed.network.architecture_parameters()[0][:, skip] = 50.0
    stacked = StackedRun(runs)
    stacked.run_epoch()
    assert stacked.runs == runs[:2]
    assert collapsed.finished
    assert set(stacked.run_epoch()) == set(runs[:2])


def test_finalists_are_trained_one_after_the_other(make_spec: SpecMaker) -> None:
    spec = SearchSpec.model_validate(
        {
            "space": {
                "kind": "hypercuboid",
                "axes": {"channels": [2, 4]},
                "levels": 1,
                "strides": [2],
                "final_channels": 8,
            },
            "algorithm": {"finalists": {"paths": 2, "epochs": 1}},
            "training": {"epochs": 1, "batch_size": 200, "learning_rate": 0.01},
        }
    )
    reports = run_stacked([SearchRun(spec, seed) for seed in SEEDS[:2]])
    for seed, own in zip(SEEDS, reports, strict=False):
        assert len(own) == 3
        assert_same_results(own, run_alone(spec, seed)[1])


def test_runs_at_different_places_are_refused(make_spec: SpecMaker) -> None:
    spec = make_spec()
    ahead = SearchRun(spec, 0)
    ahead.run_epoch()
    with pytest.raises(ValueError, match="epoch 1, batch 0, epoch 0, batch 0"):
        StackedRun([ahead, SearchRun(spec, 1)])
