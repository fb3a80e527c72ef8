"""Searches in a lower precision."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_core import orders, precision
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.orders import first_order
from search_core.precision import computing_in, in_full, logits, rounds_to_tf32
from search_core.randomness import stream
from search_core.search import SearchRun
from search_core.spaces import build_supernet
from search_core.spec import AlgorithmSpec, DartsSpace, SearchSpec, TrainingSpec
from search_core.supernet import Supernet
from search_core.weighting import scalar
from tests.search_core.full_precision import InFull

SpecMaker = Callable[..., SearchSpec]
BatchMaker = Callable[..., LabelledImages]
CUBOID = {
    "kind": "hypercuboid",
    "axes": {"channels": [2, 3], "operation": ["sharp_sep_conv", "resizable_pool"]},
    "levels": 2,
    "final_channels": 4,
}


def make_network() -> Supernet:
    network = build_supernet(
        DartsSpace(kind="darts", channels=2, cells=3, nodes=2),
        (1, 8, 8),
        10,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.mul_(300)
    return network


def error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)])
    return float(difference.norm() / torch.cat([each.flatten() for each in expected]).norm())


@pytest.mark.parametrize("relaxation", ["plain", "fast"])
def test_a_search_in_bfloat16_learns(make_spec: SpecMaker, relaxation: str) -> None:
    spec = make_spec(
        space={"channels": 4},
        algorithm={"relaxation": relaxation},
        training={"epochs": 4, "batch_size": 64, "precision": "bfloat16"},
    )
    run = SearchRun(spec, 0)
    reports = [run.run_epoch() for _ in range(4)]
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"] / 2
    assert reports[-1].metrics["validation_accuracy"] > 0.8
    assert all(each.dtype == torch.float32 for each in run.network.parameters())
    state = run.state_dict()
    assert state["weight_optimizer"][0]["momentum_buffer"].dtype == torch.float32
    assert state["architecture_optimizer"][0]["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize(
    ("space", "algorithm"),
    [
        (None, {"order": "second"}),
        (CUBOID, {"order": "first"}),
        (CUBOID, {"sampling": {"paths": 2}}),
        (CUBOID, {"finalists": {"paths": 2, "epochs": 1}}),
    ],
    ids=["second order", "cuboid", "paths", "finalists"],
)
def test_every_way_of_searching_computes_in_it(
    make_spec: SpecMaker, space: dict[str, Any] | None, algorithm: dict[str, Any]
) -> None:
    base = {"training": {"epochs": 1, "batch_size": 400, "precision": "bfloat16"}}
    spec = (
        make_spec(**base, algorithm=algorithm)
        if space is None
        else SearchSpec.model_validate({**base, "space": space, "algorithm": algorithm})
    )
    run = SearchRun(spec, 0)
    seen: set[torch.dtype] = set()
    head = run.network.get_submodule("head")
    head.register_forward_pre_hook(
        lambda module, inputs: seen.add(inputs[0].dtype) if module.training else None
    )
    while not run.finished:
        run.run_epoch()
    # The finite difference of the second order is taken in single precision, and the statistics of
    # a path that is to be measured are.
    exact = algorithm.get("order") == "second" or "sampling" in algorithm
    assert seen == {torch.bfloat16, *([torch.float32] if exact else [])}


def test_accuracy_is_measured_in_single_precision(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(training={"epochs": 1, "precision": "bfloat16"}), 0)
    seen: list[torch.dtype] = []
    run.network.get_submodule("head").register_forward_pre_hook(
        lambda module, inputs: None if module.training else seen.append(inputs[0].dtype)
    )
    run.run_epoch()
    assert set(seen) == {torch.float32}


def test_gradients_are_those_of_single_precision_less_exactly(make_batch: BatchMaker) -> None:
    train, validation = (make_batch(32, seed=seed) for seed in (1, 2))
    found = []
    for each in ("float32", "bfloat16"):
        network = make_network()
        network.precision = each
        step = BilevelStep(network, AlgorithmSpec(), TrainingSpec(learning_rate=0.05))
        found.append(first_order(network, step.weight_optimizer, train, validation).gradients)
    assert 0 < error(found[1], found[0]) < 0.3


def test_the_finite_difference_is_taken_in_single_precision(make_batch: BatchMaker) -> None:
    # Weights so little apart are the same ones in bfloat16.
    network = make_network()
    network.precision = "bfloat16"
    step = BilevelStep(network, AlgorithmSpec(order="second"), TrainingSpec())
    seen: list[torch.dtype] = []
    network.get_submodule("head").register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].dtype)
    )
    step.train_alphas(make_batch(8, seed=1), make_batch(8, seed=2))
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]


def test_the_finite_difference_is_not_rounded_to_tf32(
    make_batch: BatchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, in_full = make_network(), InFull()
    monkeypatch.setattr(orders, "in_full", in_full)
    step = BilevelStep(network, AlgorithmSpec(order="second"), TrainingSpec())
    passes = seen_of(network, in_full)
    step.train_alphas(make_batch(8, seed=1), make_batch(8, seed=2))
    assert passes == [False, False, True, True]


def seen_of(network: nn.Module, in_full: InFull) -> list[bool]:
    """Of each pass to come, whether it is made in full until its gradient is taken."""
    passes: list[bool] = []
    network.get_submodule("head").register_full_backward_hook(
        lambda *_: passes.append(in_full.is_on)
    )
    return passes


def test_the_context_and_the_logits() -> None:
    layer = nn.Linear(3, 2)
    x_nchw = torch.ones(1, 3)
    assert logits(layer, x_nchw, "float32").dtype == torch.float32
    assert logits(layer.double(), x_nchw.double(), "float32").dtype == torch.float64
    layer.float()
    rounded = logits(layer, x_nchw, "bfloat16")
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    with computing_in("bfloat16", "cpu"):
        assert layer(x_nchw).dtype == torch.bfloat16
    with computing_in("float32", "cpu"):
        assert layer(x_nchw).dtype == torch.float32


def test_a_search_does_not_take_float16(make_spec: SpecMaker) -> None:
    with pytest.raises(ValueError, match="'float32' or 'bfloat16'"):
        make_spec(training={"precision": "float16"})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that has units for TF32, as far as one can be told."""
    monkeypatch.setattr(precision, "_has_tf32", lambda _: True)
    return torch.device("cuda")


def settings() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return (
        cudnn.conv.fp32_precision,
        cudnn.rnn.fp32_precision,
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
    )


def test_tf32_is_what_pytorch_is_set_to(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounds_to_tf32(gpu)
    assert not rounds_to_tf32(torch.device("cpu"))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert not rounds_to_tf32(gpu)


@pytest.mark.parametrize(
    ("capability", "override", "has"),
    [((9, 0), None, True), ((8, 0), "1", True), ((7, 5), None, False), ((9, 0), "0", False)],
)
def test_tf32_takes_a_gpu_that_has_it_and_nobody_who_forbids_it(
    capability: tuple[int, int], override: str | None, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert precision._has_tf32.__wrapped__(torch.device("cuda")) is has


def test_a_gpu_computes_in_full_where_it_has_to(gpu: torch.device) -> None:
    before = settings()
    with suppress(KeyError), in_full(gpu):
        assert not rounds_to_tf32(gpu)
        with in_full(gpu):
            assert not rounds_to_tf32(gpu)
        assert not rounds_to_tf32(gpu)
        assert settings()[2:] == before[2:]
        raise KeyError
    assert settings() == before
    with in_full(torch.device("cpu")):
        assert settings() == before


def test_full_precision_that_is_set_by_operation_stays(gpu: torch.device) -> None:
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    usual = convolutions.fp32_precision
    # PyTorch refuses to say then whether cuDNN rounds in general.
    convolutions.fp32_precision = "ieee"
    try:
        before = settings()
        with in_full(gpu):
            assert not rounds_to_tf32(gpu)
        assert settings() == before
    finally:
        convolutions.fp32_precision = usual
