import pytest

from search_core import published
from search_core.errors import UnknownNameError
from search_core.genotype import parse
from search_core.spec.primitives import PRIMITIVES


def test_names() -> None:
    assert {"DARTS_V1", "DARTS_V2", "SHARP_DARTS", "SHARPSEPCONV_DARTS"} <= set(published.names())


@pytest.mark.parametrize("name", published.names())
def test_every_architecture_is_complete(name: str) -> None:
    architecture = published.get(name)
    assert architecture.name == name
    assert architecture.source
    genotype = architecture.genotype
    used = {edge.primitive for edge in (*genotype.normal, *genotype.reduce)}
    assert used <= set(PRIMITIVES[architecture.family])
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


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'DARTS_V3'.*DARTS_V1, DARTS_V2"):
        published.get("DARTS_V3")
