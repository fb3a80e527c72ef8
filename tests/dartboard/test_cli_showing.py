"""The command against a real server, as a user types it: showing what there is."""

import json
from pathlib import Path

import pytest

from dartboard import Client
from search_core.genotype import parse
from tests.dartboard.conftest import GENOTYPES, SPEC, Dartboard, Served, Worker


def test_showing_a_search(dartboard: Dartboard, client: Client, found: str) -> None:
    said = dartboard("show", found)
    assert said.code == 0
    assert "small  succeeded" in said.out
    assert "darts (16 channels, 8 cells, 1 nodes, 8 primitives) on digits" in said.out
    assert "0.6100" in said.out
    assert GENOTYPES[1].hash in said.out
    pace = "relaxation fast, 2.5 steps/s, 160 images/s, peak memory 3.5 GiB"
    assert f"Trial 0: {pace}\nTrial 1: {pace}\n" in said.out
    document = dartboard("show", found, "--json").json
    assert document["id"] == found
    assert document["architectures"][0]["recommended"]
    assert [trial["relaxation"] for trial in document["trials"]] == ["fast", "fast"]
    waiting = client.submit(SPEC)
    assert "place 1: no dispatcher is running" in dartboard("show", waiting.id).out


def test_an_id_may_be_shortened_or_the_last(
    dartboard: Dartboard, client: Client, server: Served
) -> None:
    assert "no search or training yet" in dartboard("show", "last").err
    assert "no search yet" in dartboard("genotype", "last").err
    first, second = client.submit(SPEC, name="first"), client.submit(SPEC, name="second")
    assert dartboard("show", "last", "--json").json["name"] == "second"
    # These two differ at the end only; the start until there is the same but for milliseconds.
    pairs = list(zip(str(first.id), str(second.id), strict=True))
    short = str(first.id)[: [one == other for one, other in pairs].index(False)]
    ambiguous = dartboard("show", short, "--json")
    assert ambiguous.code == 2
    assert str(first.id) in json.loads(ambiguous.err)["message"]
    longer = str(first.id)[: len(short) + 1]
    assert dartboard("show", longer, "--json").json["name"] == "first"
    none = dartboard("show", "0123abcd", "--json")
    assert none.code == 1
    assert "dartboard list" in json.loads(none.err)["message"]
    absent = dartboard("show", "01900000-0000-7000-8000-000000000000", "--json")
    assert (absent.code, json.loads(absent.err)["error"]) == (1, "not_found")
    assert "`dartboard trainings` show the ids" in json.loads(absent.err)["message"]


def test_listing(dartboard: Dartboard, client: Client, found: str) -> None:
    client.submit(SPEC, name="waits", labels={"team": "vision"})
    said = dartboard("list")
    assert said.code == 0
    newest, oldest = said.out.splitlines()[1:]
    assert "waits" in newest
    assert "queued (place 1)" in newest
    assert found in oldest
    assert "4/4" in oldest
    assert "0.6100" in oldest
    assert len(dartboard("list", "--json").json) == 2
    assert len(dartboard("list", "--label", "team=vision", "--json").json) == 1
    assert dartboard("list", "--status", "failed", "--json").json == []
    assert "No search matches" in dartboard("list", "--name", "other").err
    assert "There are more" in dartboard("list", "-n", "1").err
    assert dartboard("list", "--created-before", "2000-01-01", "--json").json == []
    assert dartboard("list", "--oldest-first", "--json").json[0]["id"] == found


def test_cancelling(dartboard: Dartboard, client: Client, worker: Worker, found: str) -> None:
    waiting = client.submit(SPEC)
    assert "is cancelled" in dartboard("cancel", waiting.id).out
    assert dartboard("cancel", waiting.id, "--json").json["status"] == "cancelled"
    running = client.submit(SPEC)
    worker.claim()
    assert "within seconds" in dartboard("cancel", running.id).out
    assert "(cancelling)" in dartboard("list").out
    refused = dartboard("cancel", found, "--json")
    assert (refused.code, json.loads(refused.err)["error"]) == (1, "conflict")


def test_the_queue(dartboard: Dartboard, client: Client, worker: Worker) -> None:
    assert "no dispatcher is running" in dartboard("queue").out
    worker.sign_on()
    running, waiting = client.submit(SPEC), client.submit(SPEC)
    worker.claim()
    said = dartboard("queue")
    assert "1 node with 2 CPUs and 0 GPUs; running searches need 2 CPUs and 0" in said.out
    assert str(running.id) in said.out
    assert str(waiting.id) in said.out
    assert dartboard("queue", "--json").json["counts"]["running"] == 1


def test_presets(dartboard: Dartboard, server: Served) -> None:
    assert "digits-quick" in dartboard("presets").out
    assert dartboard("presets", "--json").json[0]["spec"]["space"]["kind"] == "darts"


def test_genotypes(dartboard: Dartboard, client: Client, found: str) -> None:
    assert dartboard("genotype", found).out == GENOTYPES[1].to_text() + "\n"
    assert parse(dartboard("genotype", GENOTYPES[0].hash, "--json").out) == GENOTYPES[0]
    assert parse(dartboard("genotype", "last", "--trial", "0").out) == GENOTYPES[0]
    assert "those that have: 0, 1" in dartboard("genotype", found, "--trial", "7").err
    for digits in (6, 12, 40):
        start = GENOTYPES[0].hash[:digits]
        assert parse(dartboard("genotype", start).out) == GENOTYPES[0]
        assert dartboard("genotype", start, "--trial", 0).code == 2
    for unknown in ("abcdef", "abcdef" * 3):
        said = dartboard("genotype", unknown)
        assert said.code == 1
        assert f"no search's id starts with '{unknown}', nor the hash" in said.err
    waiting = client.submit(SPEC)
    assert f"dartboard follow {waiting.id}" in dartboard("genotype", waiting.id).err


def test_drawing(dartboard: Dartboard, found: str, tmp_path: Path) -> None:
    said = dartboard("draw", found, "--json").json
    assert said["architecture"] == GENOTYPES[1].hash
    assert (tmp_path / said["path"]).read_text().count("</svg>") == 1
    (tmp_path / "sub").mkdir()
    assert dartboard("draw", found, "--cell", "reduce", "-o", "sub/cell.dot").code == 0
    assert "digraph" in (tmp_path / "sub" / "cell.dot").read_text()
    assert dartboard("draw", found, "-o", "bare").code == 0
    assert "</svg>" in (tmp_path / "bare").read_text()
    assert "digraph" in dartboard("draw", found, "--format", "dot", "-o", "-").out
    assert {file.name for file in tmp_path.glob("**/*") if file.is_file()} == {
        said["path"],
        "cell.dot",
        "bare",
    }


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["-o", "x.png"], 2, "a picture is .svg or .dot"),
        (["-o", "x.svg", "--format", "dot"], 2, "contradict each other"),
        (["-o", "folder.svg"], 1, "it is a folder"),
        (["-o", ""], 1, "it is a folder"),
        (["-o", "missing/x.svg"], 1, "there is no folder missing"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused(
    dartboard: Dartboard,
    server: Served,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "folder.svg").mkdir()
    refused = dartboard("draw", "0" * 64, *options, "--json")
    assert refused.code == code
    assert message in json.loads(refused.err)["message"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder.svg"]
