from itertools import product

import pytest

from search_core import published
from search_core.derive import path_score
from search_core.errors import UnknownNameError
from search_core.genotype import CellGenotype, PathGenotype, parse
from search_core.spec import HyperCuboidSpace
from search_core.spec.primitives import PRIMITIVES


def test_names() -> None:
    assert {"DARTS_V1", "DARTS_V2", "SHARP_DARTS", "SHARPSEPCONV_DARTS"} <= set(published.names())
    paths = {name for name in published.names() if published.get(name).genotype.kind == "path"}
    assert paths == {"HYPERCUBOID_HANDMADE", "HYPERCUBOID_SCALAR", "HYPERCUBOID_MAX_W"}


@pytest.mark.parametrize("name", published.names())
def test_every_architecture_is_complete(name: str) -> None:
    architecture = published.get(name)
    assert architecture.name == name
    assert architecture.source
    genotype = architecture.genotype
    if isinstance(genotype, CellGenotype):
        used = {edge.primitive for edge in (*genotype.normal, *genotype.reduce)}
        assert architecture.family is not None
        assert used <= set(PRIMITIVES[architecture.family])
    else:
        assert architecture.family is None
        positions = [(step.level, step.stride) for step in genotype.steps]
        assert positions == list(product(range(4), (1, 2)))
    assert parse(genotype.to_text()) == parse(genotype.to_json()) == genotype


def test_darts_v2_as_the_paper_draws_it() -> None:
    assert published.get("DARTS_V2").genotype == parse(
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
        "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=range(2, 6))"
    )


@pytest.mark.parametrize("name", ["HANDMADE", "SCALAR", "MAX_W"])
def test_the_published_paths_are_paths_of_the_papers_cuboid(name: str) -> None:
    genotype = published.get(f"HYPERCUBOID_{name}").genotype
    space = HyperCuboidSpace(kind="hypercuboid")
    weights = [[1.0] * len(space.operations)] * len(space.positions)
    assert isinstance(genotype, PathGenotype)
    # What is no path of the space is refused.
    assert path_score(weights, space, genotype) == len(space.positions)
    assert genotype.final_channels == space.final_channels


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'DARTS_V3'.*DARTS_V1, DARTS_V2"):
        published.get("DARTS_V3")
