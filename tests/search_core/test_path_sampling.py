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
from search_core.genotype import PathGenotype
from search_core.pace import reproducible
from search_core.path_sampling import PathSampler
from search_core.randomness import stream
from search_core.search import SearchRun
from search_core.spec import AlgorithmSpec, PathSampling, SearchSpec, TrainingSpec
from search_core.weighting import Weighting, max_w, scalar
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


def make_network(weighting: Weighting = scalar) -> CuboidSupernet:
    network = CuboidSupernet(
        SPACE,
        (1, 8, 8),
        10,
        weighting=weighting,
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


@pytest.mark.parametrize("weighting", [scalar, max_w])
def test_the_chances_of_all_paths_add_up_to_one_and_are_those_drawn(weighting: Weighting) -> None:
    network = make_network(weighting)
    network.temperature = 0.7
    sampler = sampler_of(network)
    chances = {
        path: math.exp(float(sampler.log_probability(path).detach())) for path in all_paths()
    }
    assert sum(chances.values()) == pytest.approx(1)
    multipliers_po = weighting(network.architecture_weights()["cuboid"])
    drawn = Counter(sampler.draw(multipliers_po) for _ in range(4000))
    assert set(drawn) <= set(chances)
    for path, chance in chances.items():
        deviation = math.sqrt(4000 * chance * (1 - chance))
        assert abs(drawn[path] - 4000 * chance) < 5 * deviation + 1


@pytest.mark.parametrize("weighting", [scalar, max_w])
def test_the_estimate_is_the_gradient_of_the_expected_loss(
    weighting: Weighting, make_batch: BatchMaker
) -> None:
    network = make_network(weighting)
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


@pytest.mark.parametrize("weighting", [scalar, max_w])
def test_multipliers_are_what_paths_are_drawn_by(weighting: Weighting) -> None:
    network = make_network(weighting)
    multipliers_po = weighting(network.architecture_weights()["cuboid"])
    sampler = sampler_of(network)
    path = all_paths()[3]
    first, second = path
    readers = [
        index
        for index, operation in enumerate(SPACE.operations)
        if operation.in_channels == SPACE.operations[first].out_channels
    ]
    chance = multipliers_po[0, first] / multipliers_po[0].sum()
    chance = chance * multipliers_po[1, second] / multipliers_po[1, readers].sum()
    assert float(sampler.log_probability(path).detach()) == pytest.approx(math.log(chance))


def test_a_fair_step_has_every_operation_once() -> None:
    network = make_network()
    drawn = [tuple(sampler_of(network).draw_fairly()) for _ in range(1)]
    sampler = sampler_of(network)
    for _ in range(20):
        paths = sampler.draw_fairly()
        drawn.append(tuple(paths))
        assert set(paths) <= set(all_paths())
        for position in range(2):
            assert sorted(path[position] for path in paths) == list(range(8))
    assert len(set(drawn)) > 15


def test_a_fair_step_where_readers_and_writers_differ() -> None:
    # Only between different channels there is a normalisation to choose: 3 operations lead to
    # each state of 2 or 3 channels, and as many read it; with a third width it is 5 and 5.
    space = cuboid(
        axes={
            "channels": [2, 3, 4],
            "operation": ["resizable_pool"],
            "normalisation": ["batch", "group"],
        },
        levels=2,
        strides=[2],
        final_channels=4,
    )
    network = CuboidSupernet(
        space,
        (1, 8, 8),
        10,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    paths = sampler_of(network).draw_fairly()
    assert len(paths) == len(space.operations) == 15
    assert sorted(path[0] for path in paths) == sorted(path[1] for path in paths)


@pytest.mark.parametrize("weights", ["fair", "uniform", "alphas"])
def test_a_weight_step_trains_its_paths_and_nothing_else(
    weights: str, make_batch: BatchMaker
) -> None:
    network = make_network()
    sampling = PathSampling(weights=weights)  # type: ignore[arg-type]
    step = BilevelStep(
        network,
        AlgorithmSpec(sampling=sampling),
        TrainingSpec(weight_decay=0.1),
        stream(0, "paths"),
    )
    paths = PathSampler(network, sampling, stream(0, "paths")).paths_to_train()
    assert len(paths) == (8 if weights == "fair" else 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    step(train, validation, alphas=False)
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    allowed = {"head."}
    for path in paths:
        first, last = (SPACE.operations[index] for index in path)
        allowed |= {f"stems.{first.in_channels}.", f"finals.{last.out_channels}."}
        allowed |= {f"positions.{place}.operations.{index}." for place, index in enumerate(path)}
    assert changed
    assert all(name.startswith(tuple(allowed)) for name in changed)
    assert {name.split(".")[0] for name in changed} >= {"stems", "finals", "head"}


def test_a_fair_step_takes_the_mean_of_the_paths_gradients(make_batch: BatchMaker) -> None:
    network, twin = make_network(), make_network()
    step = BilevelStep(
        network,
        AlgorithmSpec(sampling=PathSampling()),
        TrainingSpec(learning_rate=0.5, momentum=0.0, weight_decay=0.0, gradient_clip=1e6),
        stream(0, "paths"),
    )
    train = make_batch(8, seed=1, dtype=torch.float64)
    result = step(train, train, alphas=False)
    paths = sampler_of(twin).draw_fairly()
    losses = [
        functional.cross_entropy(twin.path_logits(train.images_nchw, path), train.labels_n)
        for path in paths
    ]
    mean = torch.stack(losses).mean()
    assert result.loss == pytest.approx(float(mean.detach()))
    for weight, gradient in zip(
        twin.weight_parameters(), torch.autograd.grad(mean, twin.weight_parameters()), strict=True
    ):
        weight.data -= 0.5 * gradient
    for found, expected in zip(network.weight_parameters(), twin.weight_parameters(), strict=True):
        torch.testing.assert_close(found, expected)


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
    genotype = reports[-1].genotype
    assert isinstance(genotype, PathGenotype)
    assert all(step.out_channels == 12 for step in genotype.steps)
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
        {"sampling": {"weights": "uniform"}, "weighting": "max_w"},
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
        assert reproducible(again.metrics) == reproducible(last.metrics)
        seen.append((first.alphas["cuboid"], last.alphas["cuboid"]))
    assert all(a != b for a, b in itertools.combinations(seen, 2))
    alphas_after_warmup = seen[1][0]
    assert max(max(row) - min(row) for row in alphas_after_warmup) < 1e-2
