"""Architectures over HTTP: every form, ranked lists, caching, and pictures that are pictures."""

import json
import re
from xml.etree import ElementTree as ET

import pytest

from search_core.genotype import CellGenotype, Edge, parse
from search_core.spec.primitives import ALL_PRIMITIVES
from service.drawing import architecture_dot, cells
from tests.service.conftest import Api, Worker, genotype

BEST = genotype().hash
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def search_id(worker: Worker) -> str:
    search_id = worker.submit()
    worker.run_to_the_end()
    return search_id


def test_what_a_search_found_is_ranked(api: Api, search_id: str) -> None:
    first, second = api.get(f"/v1/searches/{search_id}/architectures").json()["items"]
    assert (first["architecture"], first["trial"], first["seed"]) == (BEST, 1, 7)
    assert (first["recommended"], second["recommended"]) == (True, False)
    assert first["validation_accuracy"] > second["validation_accuracy"]
    assert first["genotype"] == genotype().model_dump(mode="json")


def test_an_architecture_knows_who_found_it(api: Api, search_id: str) -> None:
    answer = api.get(f"/v1/architectures/{BEST}").json()
    assert (answer["hash"], answer["kind"]) == (BEST, "cell")
    assert parse(answer["text"]) == parse(json.dumps(answer["genotype"])) == genotype()
    (found,) = answer["found_by"]
    assert (found["search_id"], found["search_name"]) == (search_id, "first")
    assert (found["trial_number"], found["seed"], found["family"]) == (1, 7, "darts")
    assert found["validation_accuracy"] == 0.53


@pytest.mark.usefixtures("search_id")
def test_the_bare_forms_read_back(api: Api) -> None:
    as_json = api.get(f"/v1/architectures/{BEST}.json")
    as_text = api.get(f"/v1/architectures/{BEST}.txt")
    assert as_json.headers["content-type"] == "application/json"
    assert as_json.content == genotype().to_json().encode() + b"\n"
    assert as_text.headers["content-type"].startswith("text/plain")
    assert as_text.text.startswith("Genotype(normal=[('sep_conv_3x3', 0)")
    assert parse(as_json.text) == parse(as_text.text) == genotype()


@pytest.mark.parametrize("ending", ["png", "svgz", "tar.gz"])
def test_another_ending_names_the_endings_there_are(offline: Api, ending: str) -> None:
    answer = offline.get(f"/v1/architectures/{BEST}.{ending}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:dartboard:problem:not-found"
    assert "the endings are .json, .txt, .svg and .dot" in answer.json()["detail"]


@pytest.mark.usefixtures("search_id")
def test_forms_are_cached_for_ever(api: Api) -> None:
    for suffix in ("json", "txt", "svg", "dot"):
        path = f"/v1/architectures/{BEST}.{suffix}"
        answer = api.get(path)
        assert "immutable" in answer.headers["cache-control"]
        tag = answer.headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = api.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
        assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        head = api.request("HEAD", path)
        assert (head.headers["etag"], head.content) == (tag, b"")


@pytest.mark.usefixtures("search_id")
def test_the_picture_shows_each_cell(api: Api) -> None:
    path = f"/v1/architectures/{BEST}.svg"
    both = api.get(path)
    assert both.headers["content-type"] == "image/svg+xml"
    assert _texts(both.content).count("sep_conv_3x3") == 2
    assert {"normal cell", "reduction cell"} <= set(_texts(both.content))
    normal = api.get(f"{path}?cell=normal").content
    assert _texts(normal).count("sep_conv_3x3") == 1
    assert "reduction cell" not in _texts(normal)
    assert api.get(f"{path}?cell=other").status_code == 422


@pytest.mark.usefixtures("search_id")
def test_the_dot_is_what_the_picture_is_made_of(api: Api) -> None:
    answer = api.get(f"/v1/architectures/{BEST}.dot?cell=reduce")
    assert answer.headers["content-type"].startswith("text/vnd.graphviz")
    assert answer.text == architecture_dot(genotype(), ["reduce"])


@pytest.mark.parametrize("primitive", sorted(ALL_PRIMITIVES))
def test_every_primitive_has_a_colour_that_reads_on_white(primitive: str) -> None:
    color = cells.color_of(primitive)
    assert re.fullmatch("#[0-9a-f]{6}", color)
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    contrast = 1.05 / (luminance + 0.05)
    assert contrast >= (2.5 if primitive == "none" else 4.5)


def test_a_cell_of_the_largest_size_is_drawn(api: Api, worker: Worker) -> None:
    edges = tuple(
        Edge("dil_choke_conv_5x5", source) for node in range(32) for source in (node, node + 1)
    )
    large = CellGenotype(
        normal=edges, normal_concat=tuple(range(2, 34)), reduce=edges, reduce_concat=(33,)
    )
    worker.store(large)
    answer = api.get(f"/v1/architectures/{large.hash}.svg")
    assert _texts(answer.content).count("dil_choke_conv_5x5") == 128


def _texts(svg: bytes) -> list[str]:
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
