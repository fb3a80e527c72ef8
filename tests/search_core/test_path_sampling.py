import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from search_core.bilevel import BilevelStep
from search_core.cuboid_supernet import CuboidSupernet, OnePath
from search_core.data import LabelledImages
from search_core.evaluation import calibrate
from search_core.path_sampling import PathSampler
from search_core.randomness import stream
from search_core.search import SearchRun
from search_core.spec import AlgorithmSpec, PathSampling, SearchSpec, TrainingSpec
from search_core.weighting import scalar
from tests.search_core.test_hypercuboid_spec import cuboid

SpecMaker = Callable[..., SearchSpec]
BatchMaker = Callable[..., LabelledImages]

SPACE = cuboid(
    axes={"channels": [2, 3], "operation": ["sharp_sep_conv", "resizable_pool"]},
    levels=2,
    strides=[2],
    final_channels=4,
)
CUBOID = {
    "kind": "hypercuboid",
    "axes": {"channels": [4, 8]},
    "levels": 2,
    "strides": [2],
    "final_channels": 16,
}


def make_network() -> CuboidSupernet:
    network = CuboidSupernet(
        SPACE,
        (1, 8, 8),
        10,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    ).double()
    torch.nn.init.normal_(network.alpha, generator=stream(1, "alphas"))
    return network


def sampler_of(network: CuboidSupernet, **fields: Any) -> PathSampler:
    return PathSampler(network, PathSampling(**fields), stream(0, "paths"))


def all_paths() -> list[tuple[int, int]]:
    operations = SPACE.operations
    return [
        (first, second)
        for first, second in itertools.product(range(len(operations)), repeat=2)
        if operations[first].out_channels == operations[second].in_channels
    ]


def test_the_chances_of_all_paths_add_up_to_one_and_are_those_drawn() -> None:
    network = make_network()
    network.temperature = 0.7
    sampler = sampler_of(network)
    chances = {
        path: math.exp(float(sampler.log_probability(path).detach())) for path in all_paths()
    }
    assert sum(chances.values()) == pytest.approx(1)
    weights_po = network.architecture_weights()["cuboid"]
    drawn = Counter(sampler.draw(weights_po) for _ in range(4000))
    assert set(drawn) <= set(chances)
    for path, chance in chances.items():
        deviation = math.sqrt(4000 * chance * (1 - chance))
        assert abs(drawn[path] - 4000 * chance) < 5 * deviation + 1  # type: ignore[index]


def test_the_estimate_is_the_gradient_of_the_expected_loss(make_batch: BatchMaker) -> None:
    network = make_network()
    validation = make_batch(8, seed=2, dtype=torch.float64)
    sampler = sampler_of(network, paths=256)
    losses = {
        path: functional.cross_entropy(
            network.path_logits(validation.images_nchw, path), validation.labels_n
        ).detach()
        for path in all_paths()
    }
    expected_loss = torch.stack(
        [loss * sampler.log_probability(path).exp() for path, loss in losses.items()]
    ).sum()
    [exact] = torch.autograd.grad(expected_loss, [network.alpha])
    optimizer = torch.optim.SGD(network.weight_parameters(), lr=0.1)
    estimates = [
        sampler.order(network, optimizer, validation, validation).gradients[0] for _ in range(12)
    ]
    mean = torch.stack(estimates).mean(dim=0)
    spread = torch.stack(estimates).std(dim=0) / math.sqrt(len(estimates))
    assert bool(((mean - exact).abs() < 6 * spread + 1e-9).all())
    assert float((mean - exact).norm() / exact.norm()) < 0.35


@pytest.mark.parametrize("weights", ["uniform", "alphas"])
def test_a_weight_step_trains_one_path_and_nothing_else(
    weights: str, make_batch: BatchMaker
) -> None:
    network = make_network()
    step = BilevelStep(
        network,
        AlgorithmSpec(sampling=PathSampling(weights=weights)),  # type: ignore[arg-type]
        TrainingSpec(weight_decay=0.1),
        stream(0, "paths"),
    )
    expected = PathSampler(network, PathSampling(), stream(0, "paths"))
    weights_po = network.architecture_weights()["cuboid"]
    path = expected.draw(torch.ones_like(weights_po) if weights == "uniform" else weights_po)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    step(train, validation, alphas=False)
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    first, last = (SPACE.operations[index] for index in path)
    allowed = (
        f"stems.{first.in_channels}.",
        *(f"positions.{place}.operations.{index}." for place, index in enumerate(path)),
        f"finals.{last.out_channels}.",
        "head.",
    )
    assert changed
    assert all(name.startswith(allowed) for name in changed)
    assert {name.split(".")[0] for name in changed} >= {"stems", "finals", "head"}


def test_a_batch_of_paths_finds_the_operation_that_pays(make_spec: SpecMaker) -> None:
    # 1 channel against 12: on digits the wide one is far better, and a search must see it.
    spec = make_spec(
        space={**CUBOID, "axes": {"channels": [1, 12], "operation": ["sharp_sep_conv"]}},
        algorithm={"architecture_learning_rate": 0.1, "warmup_epochs": 4, "sampling": {}},
        training={"epochs": 16, "batch_size": 64},
    )
    run = SearchRun(spec, 0)
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    assert reports[3].metrics["marginal.out_channels=12"] == pytest.approx(0.5, abs=0.01)
    assert reports[-1].metrics["marginal.out_channels=12"] > 0.8
    assert all(step.out_channels == 12 for step in reports[-1].genotype.steps)
    assert reports[-1].metrics["validation_accuracy"] > 0.5


def test_what_is_measured_is_the_derived_path_alone(make_batch: BatchMaker) -> None:
    network = make_network()
    assert network.derived() is network
    network.trained_by_paths = True
    derived = network.derived()
    assert isinstance(derived, OnePath)
    images = make_batch(64, seed=1, dtype=torch.float64)
    calibrate(derived, images)
    norms = [each for each in derived.modules() if isinstance(each, _BatchNorm)]
    assert {norm.momentum for norm in norms} == {0.1}
    # Calibrated on a single batch, eval mode computes what training mode does, up to the
    # correction of the variance for its degrees of freedom.
    in_training = derived.train()(images.images_nchw)
    calibrate(derived, images)
    in_eval = derived.eval()(images.images_nchw)
    torch.testing.assert_close(in_eval, in_training, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("sections", "path", "message"),
    [
        (
            {"algorithm": {"sampling": {}, "order": "second"}},
            ("order",),
            "choose the order 'first'",
        ),
        (
            {"algorithm": {"sampling": {}, "weighting": "max_w"}},
            ("weighting",),
            "set sampling.alphas to 'mixture'",
        ),
        (
            {"space": {"kind": "darts"}, "algorithm": {"sampling": {}}},
            ("algorithm", "sampling"),
            "for the space 'hypercuboid' only, and this is 'darts'",
        ),
        (
            {"space": {"kind": "darts"}, "algorithm": {"cost_weight": 0.1}},
            ("algorithm", "cost_weight"),
            "leave it out",
        ),
        (
            {"algorithm": {"warmup_epochs": 3}, "training": {"epochs": 3}},
            ("algorithm", "warmup_epochs"),
            "leaves none of 3 epochs",
        ),
    ],
)
def test_options_that_do_not_go_together(
    sections: dict[str, Any], path: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        SearchSpec.model_validate({"space": CUBOID, **sections})
    assert caught.value.errors()[0]["ctx"]["path"] == path


def test_options_change_the_run_and_survive_a_resume(make_spec: SpecMaker) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"warmup_epochs": 1},
        {"temperature": 3.0, "final_temperature": 0.5},
        {"cost_weight": 5.0},
        {"sampling": {}},
        {"sampling": {"alphas": "mixture"}, "weighting": "max_w"},
    ]
    seen = []
    for algorithm in options:
        spec = make_spec(space=CUBOID, algorithm=algorithm)
        run = SearchRun(spec, 0)
        first = run.run_epoch()
        state = run.state_dict()
        last = run.run_epoch()
        resumed = SearchRun(spec, 0)
        resumed.load_state_dict(state)
        again = resumed.run_epoch()
        assert again.alphas == last.alphas
        assert again.genotype == last.genotype == resumed.genotype()
        assert {**again.metrics, "seconds": 0} == {**last.metrics, "seconds": 0}
        seen.append((first.alphas["cuboid"], last.alphas["cuboid"]))
    assert all(a != b for a, b in itertools.combinations(seen, 2))
    alphas_after_warmup = seen[1][0]
    assert max(max(row) - min(row) for row in alphas_after_warmup) < 1e-2
