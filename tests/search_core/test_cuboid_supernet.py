from typing import Any

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from search_core import path_network
from search_core.cuboid_size import CuboidCosts
from search_core.cuboid_supernet import CuboidSupernet, Mixture
from search_core.derive import path_score
from search_core.genotype import PathGenotype
from search_core.marginals import marginals
from search_core.randomness import stream
from search_core.spec import HyperCuboidSpace
from search_core.weighting import max_w, scalar
from tests.search_core.test_hypercuboid_spec import cuboid

SMALL = cuboid(
    axes={"channels": [4, 6], "operation": ["sharp_sep_conv", "resizable_pool"]},
    levels=2,
    final_channels=8,
)
VARIED = cuboid(
    axes={
        "channels": [3, 8],
        "operation": ["sharp_sep_conv", "skip_connect", "conv", "resizable_avg_pool"],
        "kernel_size": [3, 5],
        "activation": ["relu", "gelu"],
        "normalisation": ["batch", "group"],
    },
    levels=1,
    final_channels=8,
)


def make(
    space: HyperCuboidSpace, image_shape: tuple[int, int, int] = (1, 8, 8), **changes: Any
) -> CuboidSupernet:
    arguments: dict[str, Any] = {
        "weighting": scalar,
        "weight_generator": stream(0, "weights"),
        "alpha_generator": stream(0, "alphas"),
    }
    return CuboidSupernet(space, image_shape, 10, **{**arguments, **changes})


def test_number_of_weights_as_published() -> None:
    network = make(cuboid(), (3, 32, 32))
    assert sum(each.numel() for each in network.weight_parameters()) == 8_930_122
    assert network.alpha.numel() == 256


def test_the_size_is_known_before_it_is_built() -> None:
    for space in (SMALL, VARIED):
        network = make(space, (3, 9, 7))
        size = CuboidCosts(space, (3, 9, 7), 10).size(batch_size=4)
        assert sum(each.numel() for each in network.weight_parameters()) == size.parameters
        assert network.alpha.numel() == size.num_operations


@pytest.mark.parametrize("space", [SMALL, VARIED])
@pytest.mark.parametrize("weighting", [scalar, max_w])
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 9, 13), (2, 1, 2)])
def test_every_parameter_gets_a_gradient(
    space: HyperCuboidSpace, weighting: Any, image_shape: tuple[int, int, int]
) -> None:
    network = make(space, image_shape, weighting=weighting)
    images_nchw = torch.randn((6, *image_shape), generator=stream(1, "images"))
    logits_nk = network(images_nchw)
    assert logits_nk.shape == (6, 10)
    logits_nk.square().sum().backward()
    assert all(each.grad is not None for each in network.parameters())


def test_all_its_normalisations_are_affine() -> None:
    norms = [each for each in make(SMALL).modules() if isinstance(each, _BatchNorm)]
    assert norms
    assert all(each.affine for each in norms)


def choose(network: CuboidSupernet, route: tuple[int, ...], height: float) -> None:
    with torch.no_grad():
        network.alpha.zero_()
        for position, index in enumerate(route):
            network.alpha[position, index] = height


def test_alphas_that_are_sure_make_it_the_path_s_network() -> None:
    network = make(SMALL).double()
    # 4-6, 6-6, 6-4, 4-4, both operations.
    route = (2, 7, 4, 0)
    choose(network, route, 60.0)
    genotype = network.genotype(exclude_none=True)
    assert isinstance(genotype, PathGenotype)
    assert [(step.in_channels, step.out_channels) for step in genotype.steps] == [
        (4, 6),
        (6, 6),
        (6, 4),
        (4, 4),
    ]
    alone = path_network.build(genotype, image_shape=(1, 8, 8)).double()
    state = network.state_dict()
    parts = {
        "stem": "stems.4",
        "final": "finals.4",
        "head": "head",
        **{f"steps.{each}": f"positions.{each}.operations.{route[each]}" for each in range(4)},
    }
    alone.load_state_dict(
        {
            f"{mine}.{name.removeprefix(f'{theirs}.')}": value
            for mine, theirs in parts.items()
            for name, value in state.items()
            if name.startswith(f"{theirs}.")
        }
    )
    images_nchw = torch.randn((8, 1, 8, 8), generator=stream(1, "images"), dtype=torch.float64)
    torch.testing.assert_close(network(images_nchw), alone(images_nchw).main_nk)


def test_a_state_sums_what_puts_out_so_many_channels() -> None:
    network = make(SMALL).double().eval()
    torch.nn.init.normal_(network.alpha, generator=stream(2, "alphas"))
    images_nchw = torch.randn((2, 1, 8, 8), generator=stream(1, "images"), dtype=torch.float64)
    weights_po = network.alpha.softmax(dim=-1)
    states = {channels: network.stems[str(channels)](images_nchw) for channels in (4, 6)}
    for position in range(4):
        following = {4: torch.zeros(1), 6: torch.zeros(1)}
        for index, operation in enumerate(SMALL.operations):
            mixture = network.positions[position]
            assert isinstance(mixture, Mixture)
            term = mixture.operations[index](states[operation.in_channels])
            following[operation.out_channels] = (
                following[operation.out_channels] + weights_po[position, index] * term
            )
        states = following
    final = network.finals["4"](states[4]) + network.finals["6"](states[6])
    torch.testing.assert_close(network(images_nchw), network.head(final.mean(dim=(2, 3))))


def test_max_w_competes_within_a_position() -> None:
    seen: list[torch.Size] = []

    def watched(weights: torch.Tensor) -> torch.Tensor:
        seen.append(weights.shape)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4))
        return max_w(weights)

    make(SMALL, weighting=watched)(torch.randn((2, 1, 8, 8)))
    assert seen == [(4, 8)]


def test_statistics_of_known_alphas() -> None:
    network = make(SMALL)
    choose(network, (0, 0, 0, 0), 60.0)
    genotype = network.genotype(exclude_none=True)
    found = network.statistics(genotype)
    assert found == {
        "alpha_entropy": pytest.approx(0, abs=1e-6),
        "marginal.in_channels=4": pytest.approx(1),
        "marginal.in_channels=6": pytest.approx(0, abs=1e-6),
        "marginal.out_channels=4": pytest.approx(1),
        "marginal.out_channels=6": pytest.approx(0, abs=1e-6),
        "marginal.operation=sharp_sep_conv": pytest.approx(1),
        "marginal.operation=resizable_pool": pytest.approx(0, abs=1e-6),
    }
    weights = network.architecture_weights()["cuboid"]
    assert isinstance(genotype, PathGenotype)
    assert path_score(weights, SMALL, genotype) == pytest.approx(4)


def test_marginals_ask_only_those_that_have_the_hyperparameter() -> None:
    space = cuboid(
        axes={
            "channels": [4],
            "operation": ["conv", "resizable_pool"],
            "activation": ["relu", "silu"],
            "dilation": [2, 3],
            "mid_multiplier": [1, 2],
        },
        levels=1,
        strides=[2],
    )
    # conv: dilation x activation, in the order of the registry; a pool has neither.
    assert [each.candidate for each in space.operations] == [
        ("conv", (("dilation", 2),)),
        ("conv", (("dilation", 2), ("activation", "silu"))),
        ("conv", (("dilation", 3),)),
        ("conv", (("dilation", 3), ("activation", "silu"))),
        ("resizable_pool", ()),
    ]
    found = marginals([[0.1, 0.2, 0.3, 0.2, 0.2]], space)
    assert found == pytest.approx(
        {
            "marginal.operation=conv": 0.8,
            "marginal.operation=resizable_pool": 0.2,
            "marginal.dilation=2": 0.3 / 0.8,
            "marginal.dilation=3": 0.5 / 0.8,
            "marginal.activation=relu": 0.4 / 0.8,
            "marginal.activation=silu": 0.4 / 0.8,
        }
    )


def test_temperature_divides_the_alphas() -> None:
    network = make(SMALL)
    choose(network, (0, 0, 0, 0), 3.0)
    network.temperature = 2.0
    expected = (network.alpha.detach() / 2).softmax(dim=-1)
    torch.testing.assert_close(network.architecture_weights()["cuboid"], expected)


def test_expected_cost_is_a_share_of_the_mean_path_s() -> None:
    network = make(SMALL)
    with torch.no_grad():
        network.alpha.zero_()
    assert float(network.expected_cost().detach()) == pytest.approx(1)
    counts = CuboidCosts(SMALL, (1, 8, 8), 10).operations
    mean = sum(sum(each.cost.multiply_adds for each in row) / len(row) for row in counts)
    route = (2, 7, 4, 0)
    choose(network, route, 60.0)
    chosen = sum(row[index].cost.multiply_adds for row, index in zip(counts, route, strict=True))
    assert float(network.expected_cost().detach()) == pytest.approx(chosen / mean)
    # Pools that keep the channels are free: the gradient leads there from everything else.
    with torch.no_grad():
        network.alpha.zero_()
    [gradient] = torch.autograd.grad(network.expected_cost(), [network.alpha])
    free = [
        each.candidate.operation != "sharp_sep_conv" and each[0] == each[1]
        for each in SMALL.operations
    ]
    assert set(gradient[0].topk(2, largest=False).indices.tolist()) == {
        index for index, is_free in enumerate(free) if is_free
    }


def test_skipping_leaves_out_what_is_light_but_never_a_whole_state() -> None:
    skipping = SMALL.model_copy(update={"skip_below": 0.05})
    network, exact = make(skipping).eval(), make(SMALL).eval()
    for each in (network, exact):
        choose(each, (0, 0, 0, 0), 6.0)
    weights_o = exact.architecture_weights()["cuboid"][0]
    mixture = network.positions[0]
    assert isinstance(mixture, Mixture)
    # All but one are far below; of those into 6 channels the heaviest, the first of equals, stays.
    into_six = [index for index, each in enumerate(SMALL.operations) if each.out_channels == 6]
    assert mixture.skipped(weights_o) == frozenset(range(8)) - {0, into_six[0]}
    images_nchw = torch.randn((4, 1, 8, 8), generator=stream(1, "images"))
    called: list[int] = []
    for index, operation in enumerate(mixture.operations):
        operation.register_forward_hook(lambda *_, index=index: called.append(index))
    difference = (network(images_nchw) - exact(images_nchw)).norm() / exact(images_nchw).norm()
    assert called == [0, into_six[0]]
    assert 0 < float(difference.detach()) < 0.1
    # What is computed still trains, in both orders; what is not keeps still.
    [alpha] = torch.autograd.grad(network(images_nchw).square().sum(), [network.alpha])
    assert bool(alpha.isfinite().all())
