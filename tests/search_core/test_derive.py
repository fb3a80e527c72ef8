import pytest
import torch

from search_core.derive import cell_genotype
from search_core.genotype import Edge

PRIMITIVES = ("none", "skip_connect", "sep_conv_3x3")


def test_the_two_heaviest_edges_heaviest_first() -> None:
    node_of_three = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]
    normal = [[0.8, 0.05, 0.15], [0.1, 0.6, 0.3], *node_of_three]
    genotype = cell_genotype(normal, normal[:2], PRIMITIVES)
    assert genotype.normal == (
        Edge("skip_connect", 1),
        Edge("sep_conv_3x3", 0),
        Edge("sep_conv_3x3", 0),
        Edge("skip_connect", 2),
    )
    assert genotype.normal_concat == (2, 3)
    assert genotype.reduce == (Edge("skip_connect", 1), Edge("sep_conv_3x3", 0))
    assert genotype.reduce_concat == (2,)


def test_of_equal_edges_the_lower_and_of_equal_primitives_the_first() -> None:
    equal = [[0.2, 0.4, 0.4]] * 5
    genotype = cell_genotype(equal, equal, PRIMITIVES)
    assert genotype.normal == (
        Edge("skip_connect", 0),
        Edge("skip_connect", 1),
        Edge("skip_connect", 0),
        Edge("skip_connect", 1),
    )


def test_an_edge_weighs_what_its_best_other_primitive_weighs() -> None:
    mostly_none = [[0.9, 0.04, 0.06], [0.0, 0.05, 0.05], [0.0, 0.5, 0.5]]
    normal = [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5], *mostly_none]
    genotype = cell_genotype(normal, normal, PRIMITIVES)
    assert genotype.normal[2:] == (Edge("skip_connect", 2), Edge("sep_conv_3x3", 0))


def test_none_competes_when_it_is_not_excluded() -> None:
    normal = [[0.9, 0.04, 0.06], [0.2, 0.5, 0.3]]
    genotype = cell_genotype(normal, normal, PRIMITIVES, exclude_none=False)
    assert genotype.normal == (Edge("none", 0), Edge("skip_connect", 1))


def test_none_may_stand_in_any_column() -> None:
    normal = [[0.3, 0.3, 0.4], [0.2, 0.1, 0.7]]
    genotype = cell_genotype(normal, normal, ("max_pool_3x3", "sep_conv_3x3", "none"))
    assert genotype.normal == (Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1))


def test_tensors_and_lists_give_the_same() -> None:
    weights_ep = torch.rand((14, 3), generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    from_tensor = cell_genotype(weights_ep, weights_ep, PRIMITIVES)
    assert from_tensor == cell_genotype(weights_ep.tolist(), weights_ep.tolist(), PRIMITIVES)
    assert from_tensor.num_nodes == 4


@pytest.mark.parametrize(
    ("weights", "primitives", "message"),
    [
        ([[0.5, 0.5]] * 3, ("none", "skip_connect"), "3 edges are not those of a cell"),
        ([[0.5, 0.5]] * 2, PRIMITIVES, "edge 0 has 2 weights"),
        ([[1.0]] * 2, ("none",), "no primitive to choose"),
    ],
)
def test_what_is_no_cell_is_refused(
    weights: list[list[float]], primitives: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cell_genotype(weights, weights, primitives)
