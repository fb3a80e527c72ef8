"""One training step against the same step written out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.genotype import CellGenotype, Edge
from search_core.networks import DerivedNetwork, build
from search_core.spec.retraining import NetworkTrainingSpec
from search_core.training_step import TrainingStep

BatchMaker = Callable[..., LabelledImages]

EDGES = (Edge("sep_conv_3x3", 0), Edge("skip_connect", 1))
GENOTYPE = CellGenotype(normal=EDGES, normal_concat=(2,), reduce=EDGES, reduce_concat=(2,))
CPU = torch.device("cpu")


def network() -> DerivedNetwork:
    return build(
        GENOTYPE,
        family="darts",
        channels=2,
        cells=3,
        image_shape=(1, 8, 8),
        auxiliary=True,
        weight_generator=torch.Generator().manual_seed(3),
    )


def step(of: DerivedNetwork, **settings: object) -> TrainingStep:
    training = NetworkTrainingSpec.model_validate({"learning_rate": 0.1, **settings})
    return TrainingStep(of, training, auxiliary_weight=0.4, device=CPU)


def cross_entropy(logits_nk: Tensor, labels_n: Tensor, smoothing: float) -> Tensor:
    """By its definition, over labels of which a share is spread evenly."""
    num_classes = logits_nk.shape[1]
    targets_nk = functional.one_hot(labels_n, num_classes) * (1 - smoothing) + (
        smoothing / num_classes
    )
    losses_n = -(targets_nk * logits_nk.log_softmax(dim=1)).sum(dim=1)
    return losses_n.mean()


@pytest.mark.parametrize("clip", [1e6, 0.05])
def test_two_steps_of_the_recipe(make_batch: BatchMaker, clip: float) -> None:
    trained, reference = network(), network()
    one_step = step(
        trained, label_smoothing=0.1, gradient_clip=clip, momentum=0.9, weight_decay=3e-4
    )
    velocities: list[Tensor] = []
    for seed in range(2):
        batch = make_batch(16, seed=seed)
        found = one_step(batch)
        logits = reference(batch.images_nchw)
        main = cross_entropy(logits.main_nk, batch.labels_n, 0.1)
        loss = main + 0.4 * cross_entropy(logits.auxiliary_nk, batch.labels_n, 0.1)
        parameters = list(reference.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        assert (norm > clip) == (clip < 1)
        factor = min(1, clip / norm)
        directions = [
            factor * gradient + 3e-4 * parameter.detach()
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]
        velocities = [
            direction + 0.9 * velocity
            for direction, velocity in zip(
                directions, velocities or [torch.zeros(())] * len(directions), strict=True
            )
        ]
        with torch.no_grad():
            for parameter, velocity in zip(parameters, velocities, strict=True):
                parameter.sub_(0.1 * velocity)
        assert found.loss == pytest.approx(float(main.detach()), rel=1e-5)
        hits = int((logits.main_nk.argmax(dim=1) == batch.labels_n).sum())
        assert found.num_correct == hits
    for one, other in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_computes_the_same_less_exactly(
    make_batch: BatchMaker, precision: str
) -> None:
    exact, mixed = network(), network()
    batch = make_batch(16, seed=0)
    exact_loss = step(exact)(batch).loss
    mixed_loss = step(mixed, precision=precision)(batch).loss
    assert mixed_loss != exact_loss
    assert mixed_loss == pytest.approx(exact_loss, rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())
    assert not torch.equal(mixed.head.weight, network().head.weight)


def test_a_float16_gradient_that_overflows_is_skipped_until_the_scale_fits(
    make_batch: BatchMaker,
) -> None:
    trained = network()
    one_step = step(trained, precision="float16")
    batch = make_batch(16, seed=0)
    one_step(batch)
    before = trained.head.weight.clone()
    state = one_step.scaler.state_dict()
    one_step.scaler.load_state_dict({**state, "scale": 2.0**60})
    one_step(batch)
    assert torch.equal(trained.head.weight, before)
    assert one_step.scaler.get_scale() == 2.0**59
    one_step.scaler.load_state_dict(state)
    one_step(batch)
    assert not torch.equal(trained.head.weight, before)


def test_a_gradient_that_no_scale_can_mend_is_a_divergence(make_batch: BatchMaker) -> None:
    for precision, message in (("float16", "at any scale"), ("float32", "gradient is nan")):
        trained = network()
        one_step = step(trained, precision=precision)
        # The loss stays finite; only the way back is broken.
        trained.head.weight.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient * math.nan
        )
        if precision == "float16":
            state = one_step.scaler.state_dict()
            one_step.scaler.load_state_dict({**state, "scale": 1.0})
        with pytest.raises(DivergedError, match=message):
            one_step(make_batch(16, seed=0))
