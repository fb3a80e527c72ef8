import json

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_core.errors import InvalidGenotypeError
from search_core.genotype import CellGenotype, Edge, json_schema, parse
from search_core.spec.operations import OPERATIONS
from search_core.spec.primitives import ALL_PRIMITIVES

_PRIMITIVE = st.sampled_from(sorted(ALL_PRIMITIVES))


@st.composite
def cells(draw: st.DrawFn) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
    num_nodes = draw(st.integers(1, 6))
    edges = tuple(
        Edge(draw(_PRIMITIVE), draw(st.integers(0, 1 + node)))
        for node in range(num_nodes)
        for _ in range(2)
    )
    states = st.lists(st.integers(0, 1 + num_nodes), min_size=1, unique=True)
    return edges, tuple(draw(states))


@st.composite
def genotypes(draw: st.DrawFn) -> CellGenotype:
    normal, normal_concat = draw(cells())
    reduce, reduce_concat = draw(cells())
    return CellGenotype(
        normal=normal, normal_concat=normal_concat, reduce=reduce, reduce_concat=reduce_concat
    )


def swapped(edges: tuple[Edge, ...], swaps: list[bool]) -> tuple[Edge, ...]:
    """The edges with both of a node exchanged where the node's flag says so."""
    result: list[Edge] = []
    for node in range(len(edges) // 2):
        pair = edges[2 * node : 2 * node + 2]
        result += reversed(pair) if swaps[node % len(swaps)] else pair
    return tuple(result)


@given(genotypes())
def test_json_and_text_round_trip(genotype: CellGenotype) -> None:
    assert parse(genotype.to_json()) == genotype
    assert parse(genotype.to_text()) == genotype
    assert parse(f"\n {genotype.to_text()} ") == genotype
    assert parse(json.dumps(json.loads(genotype.to_json()), indent=2)) == genotype
    assert parse(genotype.canonical_json()).hash == genotype.hash


@given(genotypes(), st.lists(st.booleans(), min_size=1))
def test_the_hash_ignores_the_order_of_a_nodes_edges(
    genotype: CellGenotype, swaps: list[bool]
) -> None:
    other = genotype.model_copy(
        update={
            "normal": swapped(genotype.normal, swaps),
            "reduce": swapped(genotype.reduce, swaps),
        }
    )
    assert other.hash == genotype.hash


@given(genotypes(), genotypes())
def test_the_hash_tells_architectures_apart(one: CellGenotype, other: CellGenotype) -> None:
    def content(genotype: CellGenotype) -> tuple[object, ...]:
        nodes = tuple(
            tuple(sorted(edges[node : node + 2], key=lambda edge: (edge.source, edge.primitive)))
            for edges in (genotype.normal, genotype.reduce)
            for node in range(0, len(edges), 2)
        )
        return nodes, genotype.normal_concat, genotype.reduce_concat, genotype.num_nodes

    assert (one.hash == other.hash) == (content(one) == content(other))


@given(st.text(max_size=80))
def test_any_text_is_a_genotype_or_a_clear_error(text: str) -> None:
    with pytest.raises(InvalidGenotypeError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype(normal=__import__('os').system('true'))", "expected a list of literal values"),
        ("Genotype([], [], [], [])", "expected JSON"),
        ("Genotype(**{})", "four published fields"),
        ("other(normal=[])", "expected JSON"),
        ('{"kind": "cell"}', "normal: Field required"),
        ("Genotype(normal=range(10**9))", "expected a list of literal values"),
        ("Genotype(normal=[('skip_connect', 0)])", "normal: Tuple should have at least 2 items"),
        (
            "Genotype(normal=[('none', 0), ('none', 'x')])",
            "normal.1.1: Input should be a valid int",
        ),
        (
            "Genotype(normal=[('none', 0), {'primitive': 'none', 'source': 0}])",
            "normal.1: Input should be a pair of a primitive and a state",
        ),
        (
            "Genotype(normal=[('none', 0), ('none', '1')])",
            "normal.1.1: Input should be a valid int",
        ),
        ("Genotype(normal=[('none', 0), ('none', True)])", "normal.1.1: Input should be a valid"),
        ('{"kind": "path"}', "steps: Field required"),
        ('{"kind": "tree"}', "whose kind is 'cell' or 'path'"),
        ('{"kind": "cell", "version": 2}', "version: Input should be 1"),
        ('{"kind": "cell", "normal": [["skip_connect", 0]', "Invalid JSON: EOF"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidGenotypeError, match=message.replace("(", r"\(")):
        parse(text)


@pytest.mark.parametrize(
    ("normal", "concat", "message"),
    [
        ([("skip_connect", 0)] * 3, [2], "3 edges, but every node has exactly two"),
        ([("skip", 0)] * 2, [2], r"normal\[0\]: unknown primitive 'skip'; known are: .*none, "),
        ([("skip_connect", 2)] * 2, [2], r"normal\[0\]: node 0 cannot read state 2; .* 0 to 1"),
        ([("skip_connect", -1)] * 2, [2], "node 0 cannot read state -1"),
        (
            [("skip_connect", 0)] * 3 + [("none", 3)],
            [2],
            r"normal\[3\]: node 1 cannot read state 3",
        ),
        ([("skip_connect", 0)] * 2, [3], "normal_concat: no state 3 in a cell with states 0 to 2"),
        ([("skip_connect", 0)] * 2, [], "normal_concat: Tuple should have at least 1 item"),
        ([("skip_connect", 0)] * 2, [2, 2], "a state repeats"),
    ],
)
def test_what_is_no_cell_is_refused(
    normal: list[tuple[str, int]], concat: list[int], message: str
) -> None:
    fields = {"normal": normal, "normal_concat": concat, "reduce": normal, "reduce_concat": concat}
    with pytest.raises(InvalidGenotypeError, match=message):
        parse(json.dumps({"kind": "cell", **fields}))


def test_an_unknown_field_is_refused() -> None:
    edges = [["none", 0], ["none", 1]]
    fields = {"normal": edges, "normal_concat": [2], "reduce": edges, "reduce_concat": [2]}
    with pytest.raises(InvalidGenotypeError, match="cells: Extra inputs are not permitted"):
        parse(json.dumps({**fields, "cells": 3}))


@pytest.mark.parametrize("concat", [[2, 3, 4], [4, 3, 2]])
def test_the_reduction_cell_is_checked_like_the_normal_one(concat: list[int]) -> None:
    edges = [("skip_connect", 0)] * 4
    fields = {"normal": edges, "normal_concat": [2], "reduce": edges, "reduce_concat": concat}
    with pytest.raises(InvalidGenotypeError, match="reduce_concat: no state 4"):
        parse(json.dumps({"kind": "cell", **fields}))


@given(genotypes())
def test_every_genotype_is_valid_by_the_published_schema(genotype: CellGenotype) -> None:
    jsonschema.validate(json.loads(genotype.to_json()), json_schema())


@pytest.mark.parametrize("kind", ["cell", "path"])
def test_the_published_schema_describes_the_json_form(kind: str) -> None:
    whole = json_schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    assert whole["$schema"].endswith("2020-12/schema")
    names = {"cell": "CellGenotype", "path": "PathGenotype"}
    assert whole["oneOf"] == [{"$ref": f"#/$defs/{name}"} for name in names.values()]
    schema = whole["$defs"][names[kind]]
    assert schema["properties"]["kind"]["const"] == kind
    assert schema["properties"]["version"]["const"] == 1
    assert not schema["additionalProperties"]
    described = {**schema["properties"], **whole["$defs"]["PathStep"]["properties"]}
    assert all(field["description"] for field in described.values())
    json.dumps(whole)


def test_the_published_schema_lists_primitives_and_operations() -> None:
    definitions = json_schema()["$defs"]
    primitive, source = definitions["Edge"]["prefixItems"]
    assert set(primitive["enum"]) == ALL_PRIMITIVES
    assert (source["type"], source["minimum"]) == ("integer", 0)
    operation = definitions["PathStep"]["properties"]["operation"]
    assert operation["enum"] == [*OPERATIONS]
