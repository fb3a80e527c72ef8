"""The command against a real server, as a user types it."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine

from dartboard import Client, Search, Training
from dartboard.cli import main
from dartboard.cli.specs import apply_settings
from dartboard.cli.views import Lines
from search_core.genotype import parse
from store import leases, queue
from store.epoch_reports import EpochWarning
from store.leases import Capacity, Node
from store.logs import runner_log, trial_log
from store.sessions import transaction
from tests.dartboard.conftest import GENOTYPES, SPEC, Served, Worker

COLLAPSED = EpochWarning("collapsed", "All edges skip.")


class Said(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Dartboard = Callable[..., Said]


@pytest.fixture
def dartboard(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> Dartboard:
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARTBOARD_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def found(client: Client, worker: Worker) -> str:
    """The id of a search that succeeded."""
    client.submit(SPEC)
    return str(worker.run())


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


def test_following_prints_each_event_and_then_what_was_found(
    dartboard: Dartboard, found: str
) -> None:
    said = dartboard("follow", found)
    assert said.code == 0
    assert "trial 1 (seed 1): epoch 2/2, train loss 0.5000" in said.out
    assert "trial 0 (seed 0): epoch 1/2, train loss 1.0000, validation loss -" in said.out
    for genotype in GENOTYPES:
        assert genotype.hash in said.out
        assert any(parse(text) == genotype for text in genotypes_in(said.out))
    assert "Recommended: Trial 1 (seed 1) has the highest validation accuracy" in said.out


def test_following_tells_what_loads_and_what_was_warned_of(
    dartboard: Dartboard, client: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = client.submit(SPEC)
    is_shown = threading.Event()
    show = Lines.snapshot

    def snapshot(self: Lines, job: Search | Training) -> None:
        show(self, job)
        is_shown.set()

    monkeypatch.setattr(Lines, "snapshot", snapshot)

    def run() -> None:
        assert is_shown.wait(60)
        lease = worker.claim()
        for trial in search.trials:
            worker.load(lease, trial.id)
            worker.train(lease, trial.id, epochs=2, genotype=GENOTYPES[0], warnings=(COLLAPSED,))
            worker.succeed(lease, trial.id, GENOTYPES[0])
        worker.finish(lease)

    runs = threading.Thread(target=run)
    runs.start()
    lines = dartboard("follow", search.id).out.splitlines()
    runs.join()
    assert lines[:4] == [
        "queued, place 1: no dispatcher is running",
        "running",
        "trial 0 (seed 0): starting: it loads PyTorch and the data",
        "trial 0 (seed 0): started",
    ]
    assert lines[4].startswith("trial 0 (seed 0): epoch 1/2, train loss 1.0000")
    assert lines[5] == f"trial 0 (seed 0): warning at epoch 1: {COLLAPSED.message}"


def test_showing_what_loads_and_what_was_warned_of(
    dartboard: Dartboard, client: Client, worker: Worker
) -> None:
    search = client.submit(SPEC)
    lease = worker.claim()
    first, second = search.trials
    worker.train(lease, first.id, epochs=2, genotype=GENOTYPES[0], warnings=(COLLAPSED,))
    assert "starting" not in dartboard("show", search.id).out
    worker.load(lease, second.id)
    shown = dartboard("show", search.id).out
    assert f"warning: trial 0 (seed 0), epoch 2: {COLLAPSED.message}" in shown
    assert shown.count("warning: ") == 1
    assert [line.split()[:3] for line in shown.splitlines() if "starting" in line] == [
        ["1", "1", "starting"]
    ]
    worker.give_back(lease)
    assert "starting" not in dartboard("show", search.id).out


def test_following_with_json_prints_an_event_a_line(
    dartboard: Dartboard, client: Client, worker: Worker
) -> None:
    runs = threading.Timer(0.2, worker.run)
    search = client.submit(SPEC)
    runs.start()
    said = dartboard("follow", search.id, "--json")
    runs.join()
    events = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 0
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "search.succeeded"
    after = dartboard("follow", search.id, "--json", "--after", len(events) - 1)
    assert len(after.out.splitlines()) == 1


def test_submitting_and_following_in_one(
    dartboard: Dartboard, server: Served, worker: Worker
) -> None:
    def run_once_it_waits() -> None:
        with Client() as watching:
            while not any(watching.list(status="queued")):
                time.sleep(0.05)
        worker.run()

    runs = threading.Thread(target=run_once_it_waits)
    runs.start()
    said = dartboard("submit", "--preset", "digits-quick", "--follow", "--json")
    runs.join()
    search, *events = [json.loads(line) for line in said.out.splitlines()]
    assert search["status"] == "queued"
    assert events[-1]["kind"] == "search.succeeded"
    assert said.code == 0


def test_following_a_search_that_fails_or_is_cancelled_exits_with_1(
    dartboard: Dartboard, client: Client, worker: Worker
) -> None:
    failed = client.submit(SPEC)
    lease = worker.claim()
    for trial in failed.trials:
        worker.fail(lease, trial.id)
    worker.finish(lease)
    said = dartboard("follow", failed.id)
    assert said.code == 1
    assert "trial 0 (seed 0): failed: The loss diverged." in said.out
    assert said.out.endswith("The search failed (diverged). The loss diverged.\n")
    assert said.out.count("search failed") == 1
    assert "\nfailed" not in said.out
    cancelled = client.cancel(client.submit(SPEC).id)
    assert dartboard("follow", cancelled.id).code == 1
    assert "diverged" in dartboard("show", failed.id).out


def test_ctrl_c_while_following_leaves_the_search_running(client: Client, server: Served) -> None:
    search = client.submit(SPEC)
    process = subprocess.Popen(
        [sys.executable, "-m", "dartboard", "follow", str(search.id)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DARTBOARD_URL": server.url},
        # Whoever starts the tests in the background hands SIGINT on as ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            assert process.stdout is not None
            assert "no dispatcher is running" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"dartboard follow {search.id}" in err
    assert f"dartboard cancel {search.id}" in err
    assert client.get(search.id).status == "queued"


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


def test_the_logs_of_a_search_are_its_newest_runners_and_its_failed_trials(
    dartboard: Dartboard, server: Served, client: Client, worker: Worker
) -> None:
    search = client.submit(SPEC)
    nothing = dartboard("logs", search.id)
    assert nothing.code == 1
    assert f"no log of {search.id} is kept: it is queued, at attempt 0" in nothing.err
    for attempt in (1, 9, 10):
        server.keep_log(search.id, runner_log(attempt), f"one\n\x1b[36mattempt {attempt}\x1b[0m\n")
    for trial in (0, 1):
        server.keep_log(search.id, trial_log(trial, 9), f"trial {trial}\n")
    said = dartboard("logs", "last")
    assert said.out == "one\nattempt 10\n"
    assert said.err.startswith("== runner-attempt-10.log, 24 B, ")
    one = dartboard("logs", str(search.id)[:8].upper(), "-n", 1, "--json").json
    assert list(one) == ["runner-attempt-10.log"]
    assert one["runner-attempt-10.log"]["lines"] == ["attempt 10"]
    assert dartboard("logs", search.id, "--attempt", 9).out == "one\nattempt 9\n"
    assert dartboard("logs", search.id, "--trial", 1).out == "trial 1\n"

    lease = worker.claim()
    worker.fail(lease, search.trials[1].id)
    assert dartboard("logs", search.id).out == "one\nattempt 10\ntrial 1\n"
    assert dartboard("logs", search.id, "--attempt", 9).out == "one\nattempt 9\ntrial 1\n"


def test_the_logs_that_there_are_can_be_listed(
    dartboard: Dartboard, server: Served, client: Client
) -> None:
    search = client.submit(SPEC)
    assert dartboard("logs", search.id, "--list").err == "No log is kept.\n"
    assert dartboard("logs", search.id, "--list", "--json").json == []
    for name in (runner_log(1), runner_log(2), trial_log(1, 1), trial_log(0, 1)):
        server.keep_log(search.id, name, "x" * 2048)
    listed = dartboard("logs", search.id, "--list")
    assert [line.split()[:4] for line in listed.out.splitlines()[1:]] == [
        ["runner-attempt-2.log", "runner", "2", "2.0"],
        ["runner-attempt-1.log", "runner", "1", "2.0"],
        ["trial-0-attempt-1.log", "0", "1", "2.0"],
        ["trial-1-attempt-1.log", "1", "1", "2.0"],
    ]
    some = dartboard("logs", search.id, "--list", "--trial", 1, "--json").json
    assert [(log["name"], log["size"]) for log in some] == [("trial-1-attempt-1.log", 2048)]
    assert dartboard("logs", search.id, "--list", "--attempt", 7, "--json").json == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--trial", "7"], 1, "trial 7 of"),
        (["--trial", "0", "--attempt", "1"], 1, "has no log of its own of attempt 1"),
        (["--attempt", "3"], 1, "no log of attempt 3 of"),
    ],
)
def test_a_log_that_is_not_there_is_told(
    dartboard: Dartboard,
    server: Served,
    client: Client,
    options: list[str],
    code: int,
    message: str,
) -> None:
    search = client.submit(SPEC)
    server.keep_log(search.id, runner_log(1), "")
    said = dartboard("logs", search.id, *options, "--json")
    assert said.code == code
    assert message in json.loads(said.err)["message"]


def test_logs_of_a_search_need_a_server_and_those_of_a_part_take_no_trial(
    dartboard: Dartboard, server: Served, client: Client
) -> None:
    search = client.submit(SPEC)
    server.stop()
    assert dartboard("logs", search.id).code == 3
    for option in (["--trial", "1"], ["--attempt", "1"], ["--list"]):
        said = dartboard("logs", "api", *option)
        assert said.code == 2
        assert "go with a search or training" in said.err


def test_a_reader_that_has_seen_enough_is_no_error(client: Client, server: Served) -> None:
    for _ in range(3):
        client.submit(SPEC)
    done = subprocess.run(
        f"'{sys.executable}' -m dartboard list --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DARTBOARD_URL": server.url},
    )
    assert (done.stdout, done.stderr) == ("[", "")


def genotypes_in(text: str) -> list[str]:
    """Every published text form in a command's output."""
    found = []
    for piece in text.split("  Genotype(")[1:]:
        end = piece.index("])") + 2
        found.append("Genotype(" + piece[:end])
    return found


def test_shares_and_custom_resources_are_shown(
    dartboard: Dartboard, client: Client, engine: Engine, worker: Worker
) -> None:
    settings = "--set", "resources.gpus=0.25", "--set", "resources.custom.a100=1"
    said = dartboard("submit", "--preset", "digits-quick", *settings, "--dry-run")
    assert "2 CPUs, 0.5 GPUs and 2 a100 run all trials at once" in " ".join(said.out.split())
    said = dartboard("submit", "--preset", "digits-quick", "--set", "resources.gpus=1.5")
    assert said.code != 0
    assert "above 1 whole GPUs" in said.err
    capacity = Capacity((Node(4, 1, custom={"a100": 4}),))
    with transaction(engine) as session:
        queue.heartbeat(session, "test", host="here", pid=1, capacity=capacity)
    dartboard("submit", "--preset", "digits-quick", *settings)
    with transaction(engine) as session:
        assert leases.claim(session, capacity, holder="test", duration=timedelta(minutes=1))
    shown = dartboard("queue").out
    assert "running searches need 2 CPUs and 0.5 GPUs" in shown
    assert "besides: 4 a100, of which they need 2" in shown
    seen = client.queue()
    assert (seen.running[0].gpus, seen.running[0].custom) == (0.5, {"a100": 2})
    assert seen.cluster.nodes[0].custom == {"a100": 4}
