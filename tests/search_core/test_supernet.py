from typing import Any

import pytest
import torch
from torch import nn

from search_core.cells import MixedEdge
from search_core.genotype import CellGenotype
from search_core.primitives import Slot
from search_core.randomness import stream
from search_core.spaces import REGISTRY, build_supernet
from search_core.spec import DartsSpace, SearchSpec, SharpDartsSpace, SharperDartsSpace, Space
from search_core.supernet import CellSupernet, Supernet, reduction_positions
from search_core.weighting import max_w, scalar

Cells = DartsSpace | SharpDartsSpace | SharperDartsSpace

SPACES: list[Cells] = [
    DartsSpace(kind="darts", channels=2, cells=3, nodes=2),
    SharpDartsSpace(kind="sharp_darts", channels=2, cells=4, nodes=2, choke_channels=3),
    SharperDartsSpace(kind="sharper_darts", channels=2, cells=5, nodes=1),
    DartsSpace(
        kind="darts",
        channels=2,
        cells=6,
        nodes=3,
        family="sharp",
        primitives=("skip_connect", "none", "conv_7x1_1x7"),
    ),
]


def make(space: Space, image_shape: tuple[int, int, int] = (1, 8, 8), **changes: Any) -> Supernet:
    settings: dict[str, Any] = {
        "weighting": scalar,
        "weight_generator": stream(0, "weights"),
        "alpha_generator": stream(0, "alphas"),
    }
    return build_supernet(space, image_shape, 10, **{**settings, **changes})


def test_every_space_of_the_spec_has_a_network() -> None:
    schema = SearchSpec.model_json_schema()["properties"]["space"]
    assert set(REGISTRY) == set(schema["discriminator"]["mapping"])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 9, 13)])
def test_logits_and_gradients_of_every_parameter(
    space: Space, image_shape: tuple[int, int, int]
) -> None:
    network = make(space, image_shape)
    logits_nk = network(torch.randn(3, *image_shape))
    assert logits_nk.shape == (3, 10)
    logits_nk.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("space", SPACES)
def test_alphas_are_registered_and_kept_apart(space: Cells) -> None:
    network = make(space)
    alphas, weights = network.architecture_parameters(), network.weight_parameters()
    assert {"alpha_normal", "alpha_reduce"} <= set(network.state_dict())
    assert all(alpha.shape == (space.num_edges, len(space.primitives)) for alpha in alphas)
    together = {id(parameter) for parameter in [*alphas, *weights]}
    assert len(together) == len(alphas) + len(weights) == len(list(network.parameters()))
    assert all(float(alpha.detach().abs().max()) < 6e-3 for alpha in alphas)


@pytest.mark.parametrize(
    ("space", "num_parameters"),
    [(DartsSpace(kind="darts"), 1_930_618), (SharpDartsSpace(kind="sharp_darts"), 5_867_642)],
)
def test_number_of_weights_as_published(space: Space, num_parameters: int) -> None:
    network = make(space, (3, 32, 32))
    assert sum(weight.numel() for weight in network.weight_parameters()) == num_parameters


def test_an_edge_sums_its_weighted_primitives_and_skips_none() -> None:
    names = ("sep_conv_3x3", "none", "max_pool_3x3")
    edge = MixedEdge("darts", names, Slot(2, 2, 1, affine=False))
    x_nchw = torch.randn(3, 2, 5, 5)
    convolution, pool = edge.operations
    expected_nchw = 0.3 * convolution(x_nchw) + 0.6 * pool(x_nchw)
    torch.testing.assert_close(edge(x_nchw, torch.tensor([0.3, 0.1, 0.6])), expected_nchw)
    assert isinstance(pool, nn.Sequential)
    assert isinstance(pool[1], nn.BatchNorm2d)


def test_only_the_stem_has_affine_norms() -> None:
    network = make(SPACES[0])
    affine = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.affine
    ]
    assert affine == ["stem.1"]


@pytest.mark.parametrize(
    ("num_cells", "positions"), [(3, (1, 2)), (4, (1, 2)), (8, (2, 5)), (20, (6, 13))]
)
def test_reductions_at_the_thirds(num_cells: int, positions: tuple[int, ...]) -> None:
    assert reduction_positions(num_cells) == positions


def test_weighting_changes_the_function() -> None:
    x_nchw = torch.randn(2, 1, 8, 8)
    logits_nk = [make(SPACES[0], weighting=each)(x_nchw) for each in (scalar, max_w)]
    assert not torch.allclose(*logits_nk)


def test_the_generators_alone_decide_the_parameters() -> None:
    before = torch.get_rng_state()
    one = make(SPACES[0]).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    again = make(SPACES[0]).state_dict()
    other = make(SPACES[0], weight_generator=stream(1, "weights")).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert torch.equal(one["alpha_normal"], other["alpha_normal"])
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("image_shape", [(1, 3, 8), (3, 8, 2)])
def test_images_too_small_for_the_reductions(image_shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="too small for 2 reductions"):
        make(SPACES[0], image_shape)


def test_statistics_of_known_alphas() -> None:
    network = make(SPACES[0])
    assert isinstance(network, CellSupernet)
    skip = SPACES[0].primitives.index("skip_connect")
    with torch.no_grad():
        network.alpha_normal.zero_()
        network.alpha_reduce.zero_()
        network.alpha_reduce[:, skip] = 100
    genotype = network.genotype(exclude_none=True)
    assert isinstance(genotype, CellGenotype)
    statistics = network.statistics(genotype)
    assert statistics["alpha_entropy_normal"] == pytest.approx(torch.tensor(8.0).log().item())
    assert statistics["alpha_entropy_reduce"] == pytest.approx(0)
    assert statistics["skip_connects"] == 0
    assert {edge.primitive for edge in genotype.normal} == {"max_pool_3x3"}
    assert {edge.primitive for edge in genotype.reduce} == {"skip_connect"}
