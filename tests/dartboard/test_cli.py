"""The command against a real server, as a user types it: submitting, and what is no command."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dartboard.cli.specs import apply_settings
from tests.dartboard.conftest import SPEC, Dartboard, Served


def test_help_and_version_need_no_server_and_load_no_http_client() -> None:
    code = (
        "import sys; from dartboard.cli import main; status = main(['--help']);"
        "assert not {'httpx2', 'torch', 'psutil', 'pydantic'} & set(sys.modules), 'loads too much';"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "submit" in done.stdout
    version = subprocess.run(
        [sys.executable, "-m", "dartboard", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("dartboard 0.")


@pytest.mark.parametrize("command", [[], ["list"], ["submit"], ["profile"]])
def test_flags_have_no_type_in_the_help(dartboard: Dartboard, command: list[str]) -> None:
    said = dartboard(*command, "--help")
    assert said.code == 0
    assert "--help" in said.out
    assert "bool" not in said.out


def test_submitting_a_file_with_options_over_it(
    dartboard: Dartboard, server: Served, tmp_path: Path
) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({**SPEC, "labels": {"a": "1"}}))
    said = dartboard(
        *("submit", "spec.json", "--name", "mine", "--label", "team=vision", "--priority", 7),
        *("--set", "training.epochs=4", "--set", "algorithm.order=second", "--json"),
    )
    assert said.code == 0
    assert said.err == ""
    search = said.json
    assert search["name"] == "mine"
    assert search["labels"] == {"a": "1", "team": "vision"}
    assert search["priority"] == 7
    assert search["spec"]["training"]["epochs"] == 4
    assert search["spec"]["algorithm"]["order"] == "second"


def test_submitting_from_stdin(
    dartboard: Dartboard, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(SPEC)))
    said = dartboard("submit", "-")
    assert said.code == 0
    identifier = said.out.split()[1]
    assert f"dartboard follow {identifier}" in said.out
    assert "no dispatcher is running" in said.out


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"a.json": '{"name": "a"}', "b.json": '{"name": "b"}'}, ["a", "b"]),
        ({"array.json": '[{"name": "a"}, {"name": "b"}]'}, ["a", "b"]),
        ({"array.json": '[{"name": "a"}]'}, ["a"]),
        ({"lines.jsonl": '{"name": "a"}\n\n{"name": "b"}\n'}, ["a", "b"]),
        ({"a.json": '{"name":\n"a"}', "lines": '{"name": "b"}\n{"name": "c"}'}, ["a", "b", "c"]),
    ],
)
def test_submitting_many(
    dartboard: Dartboard, server: Served, tmp_path: Path, files: dict[str, str], names: list[str]
) -> None:
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    options = ("--preset", "digits-quick", "--set", "training.epochs=2", "--label", "sweep=1")
    dry = dartboard("submit", *files, *options, "--dry-run", "--json").json
    assert [result["epochs"] for result in dry] == [2] * len(names)
    assert dartboard("list", "--json").json == []
    made = dartboard("submit", *files, *options, "--json")
    assert (made.code, made.err) == (0, "")
    assert [search["name"] for search in made.json] == names
    assert {search["labels"]["sweep"] for search in made.json} == {"1"}
    said = dartboard("submit", *files, *options)
    assert f"Submitted {len(names)} searches" in said.out
    assert [line.split()[1] for line in said.out.splitlines()[1:]] == names
    assert len(dartboard("list", "--json").json) == 2 * len(names)


def test_one_bad_spec_of_many_is_named_and_none_is_submitted(
    dartboard: Dartboard, server: Served, tmp_path: Path
) -> None:
    (tmp_path / "good.json").write_text(json.dumps(SPEC))
    (tmp_path / "more.jsonl").write_text('{"preset": "digits-quick"}\n{"space": {"kind": "x"}}\n')
    said = dartboard("submit", "good.json", "more.jsonl")
    assert (said.code, said.out) == (1, "")
    assert "/searches/2/space/kind" in said.err
    assert "(spec 2 of more.jsonl)" in said.err
    assert dartboard("list", "--json").json == []
    (tmp_path / "many.json").write_text(json.dumps([SPEC] * 101))
    assert "at most 100 items" in dartboard("submit", "many.json").err
    follow = dartboard("submit", "good.json", "more.jsonl", "--follow")
    assert (follow.code, "follow each" in follow.err) == (2, True)


def test_a_named_submission_is_one_however_often_it_is_typed(
    dartboard: Dartboard, server: Served, tmp_path: Path
) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    (tmp_path / "specs.json").write_text(json.dumps([SPEC, SPEC]))
    name = ("--idempotency-key", "sweep-7", "--json")
    for command in (
        ("submit", "spec.json"),
        ("submit", "specs.json"),
        ("train", "-a", "DARTS_V2"),
    ):
        assert dartboard(*command, *name).json == dartboard(*command, *name).json
    assert len(dartboard("list", "--json").json) == 3
    assert len(dartboard("trainings", "--json").json) == 1
    other = dartboard("submit", "spec.json", "--set", "training.epochs=7", *name)
    assert other.code == 1
    assert json.loads(other.err)["error"] == "conflict"


def test_an_empty_stdin_is_told(dartboard: Dartboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = dartboard("submit", "-", "--json")
    assert said.code == 2
    assert "standard input is empty" in json.loads(said.err)["message"]


def test_settings_are_json_or_plain_words() -> None:
    spec: dict[str, Any] = {}
    texts = {
        "name": "my search",
        "space.kind": "sharp_darts",
        "dataset.root": "/data/x",
        "labels.größe": '"5"',
        "labels.x": "é",
        "algorithm.detach_max": "true",
        "augmentation.auto_augment": "null",
        "training.schedule.kind": "cosine",
        "training.schedule.power": "2.5",
        "unknown.field.x": "[1]",
    }
    apply_settings(spec, [f"{path}={text}" for path, text in texts.items()])
    assert spec == {
        "name": "my search",
        "space": {"kind": "sharp_darts"},
        "dataset": {"root": "/data/x"},
        "labels": {"größe": "5", "x": "é"},
        "algorithm": {"detach_max": True},
        "augmentation": {"auto_augment": None},
        "training": {"schedule": {"kind": "cosine", "power": 2.5}},
        "unknown": {"field": {"x": [1]}},
    }


def test_a_dry_run_stores_nothing(dartboard: Dartboard, server: Served) -> None:
    said = dartboard("submit", "--preset", "digits-quick", "--dry-run")
    assert said.code == 0
    assert "2 trials" in said.out
    assert "Nothing was submitted" in said.out
    assert dartboard("submit", "--preset=digits-quick", "--dry-run", "--json").json["num_trials"]
    assert dartboard("list", "--json").json == []


def test_a_file_may_begin_with_the_mark_that_some_editors_write(
    dartboard: Dartboard, server: Served, tmp_path: Path
) -> None:
    file = tmp_path / "spec.json"
    file.write_text('{"preset": "digits-quick"}', encoding="utf-8-sig")
    assert dartboard("submit", str(file), "--dry-run", "--json").json["num_trials"] == 2


def test_a_bad_spec_gets_a_line_for_each_pointer(dartboard: Dartboard, server: Served) -> None:
    bad = ("--set", "space.channels=0", "--set", "training.epohcs=2")
    said = dartboard("submit", "--preset", "digits-quick", *bad)
    assert (said.code, said.out) == (1, "")
    assert [line.split(":")[0].strip() for line in said.err.splitlines()] == [
        "error",
        "/space/channels",
        "/training/epohcs",
    ]
    as_json = dartboard("submit", "--preset", "digits-quick", *bad, "--json")
    assert (as_json.code, as_json.out) == (1, "")
    error = json.loads(as_json.err)
    assert error["error"] == "invalid_spec"
    assert {each["pointer"] for each in error["errors"]} == {"/space/channels", "/training/epohcs"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit"], "say what to search"),
        (["submit", "missing.json"], "missing.json cannot be read: No such file or directory"),
        (["submit", "."], ". cannot be read: Is a directory"),
        (["submit", "text.json"], "text.json is not JSON"),
        (["submit", "empty.json"], "empty.json is empty: the smallest spec is"),
        (["submit", "bytes.json"], "not text in UTF-8"),
        (["submit", "array.json"], "no JSON object"),
        (["submit", "--set", "training"], "write it like"),
        (["submit", "--set", ".=1"], "write it like"),
        (["submit", "--set", "name=x", "--set", "name.first=1"], "name is not an object"),
        (["submit", "--set", "training.epochs.x=3"], "training.epochs is not an object"),
        (["submit", "--set", "trials.seeds.0=3"], "trials.seeds is not an object"),
        (["submit", "--set", "space.kind.x.y=3"], "space.kind is not an object"),
        (["submit", "--set", "trials.seeds=[1"], "[1 is not JSON"),
        (["submit", "--set", "training.epochs="], "nothing is not JSON"),
        (["submit", "--set", "name=2nd try"], "as in --set 'name=\"2nd try\"'"),
        (["submit", "--set", "algorithm.detach_max=True"], "True is not JSON"),
        (["list", "--url", "foo"], "'foo' is not the address of a server"),
        (["submit", "--preset", "digits-quick", "--label", "team"], "write it like"),
        (["list", "--status", "asleep"], "no status"),
        (["list", "-n", "0"], "greater than or equal to 1"),
        (["show", "zz"], "no id of a search"),
        (["show"], "Missing argument"),
        (["draw", "0" * 64, "--trial", "1"], "goes with a search"),
        (["draw", "0" * 64, "--json", "-o", "-"], "both write to stdout"),
        (["up", "--port", "70000"], "less than or equal to 65535"),
        (["logs", "nothing"], "is no part (postgres, migrations, cluster, dispatcher, api)"),
        (["nothing"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_told(
    dartboard: Dartboard, server: Served, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "empty.json").write_text(" ")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    (tmp_path / "array.json").write_text("[]")
    said = dartboard(*arguments, "--json")
    assert (said.code, said.out) == (2, "")
    error = json.loads(said.err)
    assert error["error"] == "usage"
    assert message in error["message"]
    if "--json" not in arguments:
        for_people = dartboard(*arguments)
        assert (for_people.code, for_people.out) == (2, "")
        assert "Error" in for_people.err


def test_without_a_server_every_command_exits_with_3(dartboard: Dartboard, server: Served) -> None:
    server.stop()
    identifier = "01900000-0000-7000-8000-000000000000"
    for command in (
        ("submit", "--preset", "digits-quick"),
        ("follow", identifier),
        ("show", identifier),
        ("cancel", identifier),
        ("list",),
    ):
        said = dartboard(*command, "--json")
        assert (said.code, said.out) == (3, ""), command
        assert json.loads(said.err)["error"] == "server_unreachable"
        if command[0] == "list":
            assert "dartboard up" in dartboard(*command).err
