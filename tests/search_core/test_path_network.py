"""The network of a path, and that all of its counts are those of its description."""

from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from search_core import costs, layers, path_network, published
from search_core.cuboid_size import CuboidCosts, path_cost
from search_core.cuboid_supernet import CuboidSupernet
from search_core.genotype import PathGenotype, PathStep
from search_core.profile import profile
from search_core.randomness import stream
from search_core.spec import HyperCuboidSpace
from search_core.spec.layers import Layers
from search_core.spec.operations import OPERATIONS
from search_core.weighting import scalar
from tests.search_core.test_genotype_paths import CHOICES, STEP, paths
from tests.search_core.test_hypercuboid_spec import cuboids

ImageShape = tuple[int, int, int]
IMAGE_SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 11), st.integers(1, 11))


def build(genotype: PathGenotype, image_shape: ImageShape = (1, 8, 8)) -> path_network.PathNetwork:
    return path_network.build(
        genotype,
        classes=5,
        image_shape=image_shape,
        weight_generator=stream(0, "weights"),
    )


def path(*changes: dict[str, Any]) -> PathGenotype:
    return PathGenotype.model_validate(
        {"final_channels": 8, "steps": [{**STEP, **each} for each in changes]}
    )


def test_the_handmade_path_as_published() -> None:
    genotype = published.get("HYPERCUBOID_HANDMADE").genotype
    assert isinstance(genotype, PathGenotype)
    found = profile(path_network.build(genotype), (3, 32, 32))
    assert found.parameters == 1_035_882
    assert found.paper_multiply_adds == 15_714_816
    assert found.multiply_adds == 15_142_400


# Which `nn.GroupNorm` refuses, also in eval mode.
ONE_VALUE = PathGenotype.model_validate(
    {
        "final_channels": 1,
        "steps": [
            {**STEP, "in_channels": 1, "out_channels": 1, "settings": {"normalisation": "group"}}
        ],
    }
)


@settings(max_examples=60)
@given(paths(), IMAGE_SHAPES)
@example(ONE_VALUE, (1, 1, 1))
def test_a_path_costs_what_its_network_does(
    genotype: PathGenotype, image_shape: ImageShape
) -> None:
    found = profile(build(genotype, image_shape), image_shape)
    assert asdict(found) == asdict(path_cost(genotype, image_shape, 5))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(6, 6), (6, 9), (1, 1)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_costs_what_it_describes_with_every_choice_of_every_axis(
    operation: str, channels: tuple[int, int], stride: int
) -> None:
    choices = [{name: choice} for name, some in CHOICES.items() for choice in some]
    choices += [{"kernel_size": 5, "dilation": 3, "mid_multiplier": 0.25, "normalisation": "group"}]
    for chosen in choices:
        described = PathStep.model_validate(
            {
                **STEP,
                "in_channels": channels[0],
                "out_channels": channels[1],
                "stride": stride,
                "operation": operation,
                "settings": chosen,
            }
        ).layers
        for size in ((8, 8), (7, 5), (1, 1)):
            check_counts(described, channels[0], size)


def check_counts(described: Layers, in_channels: int, size: tuple[int, int]) -> None:
    module = layers.build(described).eval()
    counted = costs.count(described, in_channels, size)
    output_nchw = module(torch.zeros(1, in_channels, *size))
    assert tuple(output_nchw.shape[2:]) == counted.out_size
    if not list(module.parameters()):  # the profile asks a parameter for its device
        module = nn.Sequential(module, nn.PReLU())
        counted_parameters = counted.cost.parameters + 1
    else:
        counted_parameters = counted.cost.parameters
    found = profile(module, (in_channels, *size))
    assert found.parameters == counted_parameters
    assert found.multiply_adds == counted.cost.multiply_adds
    assert found.paper_multiply_adds == counted.cost.paper_multiply_adds


@settings(max_examples=25)
@given(cuboids(), IMAGE_SHAPES)
def test_a_cuboid_has_the_size_of_its_supernet(
    space: HyperCuboidSpace, image_shape: ImageShape
) -> None:
    network = CuboidSupernet(
        space,
        image_shape,
        5,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    size = CuboidCosts(space, image_shape, 5).size(batch_size=4)
    assert sum(each.numel() for each in network.weight_parameters()) == size.parameters
    assert network.alpha.numel() == size.num_operations
    found = profile(network, image_shape)
    assert found.parameters == size.parameters
    assert found.multiply_adds == size.multiply_adds


@settings(max_examples=40)
@given(paths(max_channels=12), IMAGE_SHAPES)
@example(ONE_VALUE, (1, 1, 1))
def test_every_weight_gets_a_gradient(genotype: PathGenotype, image_shape: ImageShape) -> None:
    network = build(genotype, image_shape)
    images_nchw = torch.randn((3, *image_shape), generator=stream(1, "images"))
    logits = network(images_nchw)
    assert logits.main_nk.shape == (3, 5)
    assert logits.auxiliary_nk is None
    logits.main_nk.square().sum().backward()
    assert all(
        each.grad is not None and each.grad.isfinite().all() for each in network.parameters()
    )
    # A last batch may have one image.
    assert network.eval()(images_nchw[:1]).main_nk.isfinite().all()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("axis", "choice"), [(a, c) for a, some in CHOICES.items() for c in some])
def test_every_layer_trains(operation: str, axis: str, choice: Any) -> None:
    network = build(
        path(
            {"operation": operation, "out_channels": 6, "settings": {axis: choice}},
            {"in_channels": 6},
        )
    )
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    images_nchw = torch.randn((8, 1, 8, 8), generator=stream(1, "images"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(network(images_nchw).main_nk, torch.arange(8) % 5)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    still = [name for name, each in network.named_parameters() if torch.equal(each, before[name])]
    assert still == []


def test_every_operation_of_the_path_is_in_its_network() -> None:
    steps = (
        {"out_channels": 6},
        {"in_channels": 6, "out_channels": 5, "operation": "conv", "stride": 2},
        {"in_channels": 5, "out_channels": 5, "operation": "skip_connect", "stride": 2},
        {"in_channels": 5, "out_channels": 7, "operation": "resizable_pool", "stride": 2},
    )
    network = build(path(*steps), (1, 16, 16)).eval()
    images_nchw = torch.randn((2, 1, 16, 16), generator=stream(1, "images"))
    heads: list[torch.Tensor] = []
    network.final.register_forward_hook(lambda _, inputs, __: heads.append(inputs[0]))
    whole_nk = network(images_nchw).main_nk
    # What the head is given has been through every stride, the last one's too.
    assert heads[0].shape == (2, 7, 2, 2)
    assert len(network.steps) == len(steps)
    for step in network.steps:
        # An operation that says nothing of the images leaves nothing to tell them apart by.
        silenced = step.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        one_k, other_k = network(images_nchw).main_nk
        silenced.remove()
        assert torch.equal(one_k, other_k)
    assert not torch.equal(*whole_nk)
