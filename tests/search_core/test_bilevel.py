from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from search_core import orders
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.orders import first_order, second_order
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import (
    AlgorithmSpec,
    DartsSpace,
    HyperCuboidSpace,
    SharpDartsSpace,
    Space,
    TrainingSpec,
)
from search_core.supernet import Supernet
from search_core.weighting import Weighting, max_w, scalar

BatchMaker = Callable[..., LabelledImages]

DARTS = DartsSpace(kind="darts", channels=2, cells=3, nodes=2)
SHARP = SharpDartsSpace(kind="sharp_darts", channels=2, cells=4, nodes=1, choke_channels=3)
SMOOTH = DartsSpace(
    kind="darts",
    channels=2,
    cells=3,
    nodes=2,
    primitives=("none", "avg_pool_3x3", "skip_connect", "sep_conv_3x3"),
)
SMALL = DartsSpace(kind="darts", channels=2, cells=3, nodes=1)

CUBOID = HyperCuboidSpace.model_validate(
    {
        "kind": "hypercuboid",
        "axes": {"channels": [2, 3], "kernel_size": [3, 5]},
        "levels": 1,
        "final_channels": 4,
    }
)

TRAINING = TrainingSpec(learning_rate=0.05, momentum=0.9, weight_decay=3e-3, gradient_clip=1.0)


def make_network(space: Space, weighting: Weighting = scalar) -> Supernet:
    return build_supernet(
        space,
        (1, 8, 8),
        10,
        weighting=weighting,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    ).double()


def exact_gradient(
    network: Supernet, step: BilevelStep, train: LabelledImages, validation: LabelledImages
) -> list[Tensor]:
    """The gradient of the one-step unrolled loss, by differentiating through the step itself."""
    alphas = {id(alpha) for alpha in network.architecture_parameters()}
    named = dict(network.named_parameters())
    weights = {name: value for name, value in named.items() if id(value) not in alphas}
    group = step.weight_optimizer.param_groups[0]
    loss = functional.cross_entropy(network(train.images_nchw), train.labels_n)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    ahead = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        velocity = step.weight_optimizer.state[weight].get("momentum_buffer", torch.tensor(0.0))
        direction = group["momentum"] * velocity + gradient + group["weight_decay"] * weight
        ahead[name] = weight - group["lr"] * direction
    logits_nk = functional_call(network, ahead, (validation.images_nchw,))
    unrolled = functional.cross_entropy(logits_nk, validation.labels_n)
    return list(torch.autograd.grad(unrolled, network.architecture_parameters()))


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)])
    return float(difference.norm() / torch.cat([each.flatten() for each in expected]).norm())


@pytest.mark.parametrize("weighting", [scalar, max_w])
@pytest.mark.parametrize("space", [DARTS, SHARP, CUBOID])
@pytest.mark.parametrize("num_steps_before", [0, 2])
def test_second_order_is_the_gradient_of_the_unrolled_loss(
    space: Space,
    weighting: Weighting,
    num_steps_before: int,
    make_batch: BatchMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = make_network(space, weighting)
    step = BilevelStep(network, AlgorithmSpec(architecture_learning_rate=0.1), TRAINING)
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    for _ in range(num_steps_before):  # then there is a momentum buffer
        step(train, validation)
    expected = exact_gradient(network, step, train, validation)

    # A step this short crosses no kink of a ReLU or a max pool, so what is left is rounding.
    monkeypatch.setattr(orders, "PERTURBATION", 1e-6)
    found = second_order(network, step.weight_optimizer, train, validation).gradients
    assert relative_error(found, expected) < 1e-7
    # The correction is no trifle that the comparison could miss.
    uncorrected = first_order(network, step.weight_optimizer, train, validation).gradients
    assert relative_error(uncorrected, expected) > 0.1


def test_without_kinks_the_published_perturbation_errs_by_its_square(
    make_batch: BatchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(SMOOTH)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
    step = BilevelStep(network, AlgorithmSpec(), TRAINING)
    train, validation = (make_batch(32, seed=seed, dtype=torch.float64) for seed in (1, 2))
    expected = exact_gradient(network, step, train, validation)
    errors = []
    for perturbation in (0.01, 0.001):
        monkeypatch.setattr(orders, "PERTURBATION", perturbation)
        found = second_order(network, step.weight_optimizer, train, validation).gradients
        errors.append(relative_error(found, expected))
    assert errors[0] < 1e-2
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.1)


def test_first_order_is_the_gradient_at_the_weights(make_batch: BatchMaker) -> None:
    network = make_network(SMALL)
    step = BilevelStep(network, AlgorithmSpec(), TRAINING)
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    loss = functional.cross_entropy(network(validation.images_nchw), validation.labels_n)
    expected = torch.autograd.grad(loss, network.architecture_parameters())
    found = first_order(network, step.weight_optimizer, train, validation)
    assert float(found.loss) == float(loss.detach())
    assert relative_error(found.gradients, expected) < 1e-12


@pytest.mark.parametrize("order", ["first", "second"])
def test_the_architecture_step_moves_nothing_but_alphas(order: str, make_batch: BatchMaker) -> None:
    network = make_network(SMALL)
    step = BilevelStep(network, AlgorithmSpec(), TRAINING)
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    step(train, validation)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step.order = orders.ORDERS[order]
    step.train_alphas(train, validation)
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"alpha_normal", "alpha_reduce"}
    assert all(
        module.track_running_stats for module in network.modules() if isinstance(module, _BatchNorm)
    )
    assert all(parameter.grad is None for parameter in network.parameters())


def test_weights_follow_sgd_with_momentum_decay_and_clipping(make_batch: BatchMaker) -> None:
    network, twin = make_network(SMALL), make_network(SMALL)
    training = TrainingSpec(learning_rate=0.05, momentum=0.9, weight_decay=0.1, gradient_clip=0.1)
    step = BilevelStep(network, AlgorithmSpec(), training)
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    velocities = [torch.zeros_like(weight) for weight in twin.weight_parameters()]
    for _ in range(3):
        step.train_weights(train)
        weights = twin.weight_parameters()
        loss = functional.cross_entropy(twin(train.images_nchw), train.labels_n)
        gradients = torch.autograd.grad(loss, weights)
        norm = float(torch.cat([each.flatten() for each in gradients]).norm())
        assert norm > 0.1
        with torch.no_grad():
            for weight, gradient, velocity in zip(weights, gradients, velocities, strict=True):
                velocity.mul_(0.9).add_(gradient * 0.1 / norm + 0.1 * weight)
                weight.sub_(0.05 * velocity)
    for found, expected in zip(network.weight_parameters(), twin.weight_parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert validation.labels_n.shape == (8,)


def test_the_alphas_are_trained_before_the_weights(make_batch: BatchMaker) -> None:
    network = make_network(SMALL)
    step = BilevelStep(network, AlgorithmSpec(architecture_learning_rate=1.0), TRAINING)
    train, validation = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    losses = []
    original = step.train_weights

    def train_weights(batch: LabelledImages) -> object:
        with torch.no_grad():
            logits_nk = network(batch.images_nchw)
            losses.append(float(functional.cross_entropy(logits_nk, batch.labels_n)))
        return original(batch)

    step.train_weights = train_weights  # type: ignore[method-assign, assignment]
    before = float(functional.cross_entropy(network(train.images_nchw), train.labels_n).detach())
    result = step(train, validation)
    assert result.loss == pytest.approx(losses[0])
    assert result.loss != pytest.approx(before)


@pytest.mark.parametrize("half", ["validation", "training"])
def test_a_loss_that_is_not_finite_trains_nothing(half: str, make_batch: BatchMaker) -> None:
    network = make_network(SMALL)
    step = BilevelStep(network, AlgorithmSpec(), TRAINING)
    good, bad = (make_batch(8, seed=seed, dtype=torch.float64) for seed in (1, 2))
    bad.images_nchw[0, 0, 0, 0] = float("nan")
    train, validation = (good, bad) if half == "validation" else (bad, good)
    with pytest.raises(DivergedError, match=f"the {half} loss is nan"):
        step(train, validation)
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())
