"""Stacked seeds against each seed alone, which is the oracle."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core import primitives, weighting
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.primitives import Slot
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import SearchSpec
from search_core.spec.primitives import PRIMITIVES
from search_core.stacking import orders
from search_core.stacking.networks import images_of, stack_supernets
from search_core.stacking.operations import EachAlone, stack
from search_core.stacking.orders import StackedBatch
from search_core.stacking.step import NotFiniteError, StackedStep
from search_core.supernet import CellSupernet, Supernet
from tests.search_core.full_precision import InFull

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
    with pytest.raises(ValueError, match="no stacked form of Unknown"):
        stack_supernets([Unknown.__new__(Unknown) for _ in SEEDS])
