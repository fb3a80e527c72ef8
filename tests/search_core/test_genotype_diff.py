from hypothesis import given
from hypothesis import strategies as st

from search_core.genotype import CellGenotype, Edge
from search_core.genotype_diff import CellDiff, NodeDiff, diff
from tests.search_core.published_cells import cells
from tests.search_core.test_genotype import genotypes, swapped

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"


def genotype(*normal: tuple[str, int], concat: tuple[int, ...] = (2,)) -> CellGenotype:
    return CellGenotype(
        normal=tuple(Edge(*edge) for edge in normal),
        normal_concat=concat,
        reduce=(Edge(SKIP, 0), Edge(SKIP, 1)),
        reduce_concat=(2,),
    )


def test_a_diff_worked_by_hand() -> None:
    a = genotype((CONV, 0), (SKIP, 1), (POOL, 1), (POOL, 1), concat=(2, 3))
    b = genotype((SKIP, 1), (CONV, 1), (POOL, 1), (SKIP, 2), (CONV, 3), (CONV, 0), concat=(3,))
    found = diff(a, b)
    assert found.normal == CellDiff(
        "normal",
        (
            NodeDiff(0, (Edge(SKIP, 1),), (Edge(CONV, 0),), (Edge(CONV, 1),)),
            NodeDiff(1, (Edge(POOL, 1),), (Edge(POOL, 1),), (Edge(SKIP, 2),)),
            NodeDiff(2, (), (), (Edge(CONV, 0), Edge(CONV, 3))),
        ),
        (2, 3),
        (3,),
    )
    assert not found.normal.identical
    assert found.reduce.identical
    assert not found.identical


def test_an_output_in_another_order_is_another_architecture() -> None:
    edges = ((CONV, 0), (SKIP, 1), (CONV, 0), (SKIP, 1))
    found = diff(genotype(*edges, concat=(2, 3)), genotype(*edges, concat=(3, 2)))
    assert not any(node.only_in_a or node.only_in_b for node in found.normal.nodes)
    assert not found.identical


def test_published_architectures() -> None:
    first, second = cells("DARTS_V1"), cells("DARTS_V2")
    found = diff(first, second)
    assert len(found.normal.nodes) == len(found.reduce.nodes) == 4
    assert not found.identical


@given(genotypes(), genotypes())
def test_a_diff_is_empty_exactly_where_the_hashes_agree(a: CellGenotype, b: CellGenotype) -> None:
    assert diff(a, b).identical == (a.hash == b.hash)


@given(genotypes(), st.lists(st.booleans(), min_size=1))
def test_the_order_of_a_nodes_edges_does_not_matter(
    genotype: CellGenotype, swaps: list[bool]
) -> None:
    update = {
        "normal": swapped(genotype.normal, swaps),
        "reduce": swapped(genotype.reduce, swaps),
    }
    assert diff(genotype, genotype.model_copy(update=update)).identical


@given(genotypes(), genotypes())
def test_a_diff_accounts_for_every_edge_and_can_be_turned_round(
    a: CellGenotype, b: CellGenotype
) -> None:
    there, back = diff(a, b), diff(b, a)
    for cell, reverse, edges in (
        (there.normal, back.normal, a.normal),
        (there.reduce, back.reduce, a.reduce),
    ):
        for node, turned in zip(cell.nodes, reverse.nodes, strict=True):
            own = edges[2 * node.node : 2 * node.node + 2]
            assert sorted(node.same + node.only_in_a) == sorted(own)
            assert (node.same, node.only_in_a) == (turned.same, turned.only_in_b)
