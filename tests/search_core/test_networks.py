import pytest
import torch
from torch import nn

from search_core import published
from search_core.auxiliary import AuxiliaryHead
from search_core.derived_cells import DerivedCell
from search_core.drop_path import DropPath, drop_path_probability
from search_core.genotype import CellGenotype
from search_core.networks import DerivedNetwork, Form, build
from search_core.spec.primitives import Family
from tests.search_core.published_cells import NAMES
from tests.search_core.published_cells import cells as published_cells

DARTS_V2 = published_cells("DARTS_V2")


def small(
    genotype: CellGenotype = DARTS_V2,
    *,
    form: Form = "cifar",
    family: Family = "darts",
    image_shape: tuple[int, int, int] = (3, 16, 16),
    cells: int = 3,
    auxiliary: bool = False,
) -> DerivedNetwork:
    return build(
        genotype,
        form=form,
        family=family,
        channels=4,
        cells=cells,
        classes=7,
        image_shape=image_shape,
        auxiliary=auxiliary,
        choke_channels=5,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_published_architecture_can_be_trained(name: str) -> None:
    family = published.get(name).family
    assert family is not None
    network = small(published_cells(name), family=family, auxiliary=True)
    logits = network(torch.randn(2, 3, 16, 16))
    assert logits.auxiliary_nk is not None
    assert logits.main_nk.shape == logits.auxiliary_nk.shape == (2, 7)
    (logits.main_nk.sum() + logits.auxiliary_nk.sum()).backward()
    # A node outside the concatenation may end nowhere, as AmoebaNet's do.
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    assert all(parameter.grad is not None for parameter in network.stem.parameters())


@pytest.mark.parametrize(
    ("form", "image_shape"),
    [
        ("cifar", (1, 8, 8)),
        ("cifar", (1, 4, 4)),
        ("cifar", (3, 28, 31)),
        ("cifar", (4, 32, 32)),
        ("imagenet", (3, 64, 64)),
        ("imagenet", (1, 57, 100)),
        ("imagenet", (3, 25, 25)),
    ],
)
@pytest.mark.parametrize("cells", [3, 5])
def test_other_image_sizes_and_channels(
    form: Form, image_shape: tuple[int, int, int], cells: int
) -> None:
    network = small(form=form, image_shape=image_shape, cells=cells, auxiliary=True)
    logits = network(torch.randn(2, *image_shape))
    assert logits.main_nk.shape == (2, 7)
    assert logits.auxiliary_nk is not None
    assert logits.auxiliary_nk.shape == (2, 7)


@pytest.mark.parametrize(("form", "image_shape"), [("cifar", (3, 3, 8)), ("imagenet", (3, 24, 64))])
def test_images_too_small_for_the_form(form: Form, image_shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="too small"):
        small(form=form, image_shape=image_shape)


def test_the_auxiliary_head_is_for_training_only() -> None:
    network = small(auxiliary=True)
    assert network.eval()(torch.randn(1, 3, 16, 16)).auxiliary_nk is None
    assert small()(torch.randn(2, 3, 16, 16)).auxiliary_nk is None


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)])
def test_the_auxiliary_pool_is_the_published_one_at_the_published_sizes(
    size: int, stride: int
) -> None:
    x_nchw = torch.randn(2, 3, size, size)
    pool = AuxiliaryHead(3, (size, size), 10).features[1]
    torch.testing.assert_close(pool(x_nchw), nn.AvgPool2d(5, stride=stride)(x_nchw))


def test_a_generator_decides_the_initial_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        network = build(DARTS_V2, family="darts", channels=2, cells=3, weight_generator=generator)
        return network.head.weight

    before = torch.get_rng_state()
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert torch.equal(before, torch.get_rng_state())


def test_norms_are_affine() -> None:
    norms = [each for each in small().modules() if isinstance(each, nn.BatchNorm2d)]
    assert norms
    assert all(norm.affine for norm in norms)


def test_a_none_on_an_edge_is_a_zero() -> None:
    edges = (("none", 0), ("skip_connect", 1))
    genotype = CellGenotype.model_validate(
        {"normal": edges, "normal_concat": (2,), "reduce": edges, "reduce_concat": (2,)}
    )
    cell = small(genotype).cells[0]
    assert isinstance(cell, DerivedCell)
    older_nchw, newer_nchw = torch.randn(2, 12, 4, 4), torch.randn(2, 12, 4, 4)
    torch.testing.assert_close(cell(older_nchw, newer_nchw), cell.newer(newer_nchw))


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    drop = DropPath()
    drop.probability, drop.generator = 0.25, torch.Generator().manual_seed(0)
    output_nchw = drop(torch.ones(4000, 2, 3, 3))
    per_image_n = output_nchw.flatten(start_dim=1)
    assert {round(value, 5) for value in per_image_n.unique().tolist()} == {0.0, 1.33333}
    assert bool((per_image_n == per_image_n[:, :1]).all())
    assert float(output_nchw.mean()) == pytest.approx(1, abs=0.03)


def test_drop_path_spares_identities_and_eval_mode() -> None:
    network = small()
    generator = torch.Generator()
    network.set_drop_path(0.5, generator)
    for cell in network.cells:
        assert isinstance(cell, DerivedCell)
        for operation in cell.operations:
            dropped = any(isinstance(each, DropPath) for each in operation.modules())
            assert dropped != isinstance(operation, nn.Identity)
    x_nchw = torch.randn(4, 3, 16, 16)
    once, again = (network(x_nchw).main_nk for _ in range(2))
    assert not torch.equal(once, again)
    generator.manual_seed(3)
    once = network(x_nchw).main_nk
    generator.manual_seed(3)
    assert torch.equal(once, network(x_nchw).main_nk)
    network.eval()
    assert torch.equal(network(x_nchw).main_nk, network(x_nchw).main_nk)


def test_drop_path_increases_linearly() -> None:
    assert [drop_path_probability(0.2, epoch, 4) for epoch in range(4)] == pytest.approx(
        [0, 0.05, 0.1, 0.15]
    )
    with pytest.raises(ValueError, match="must be in"):
        small().set_drop_path(1.0)
