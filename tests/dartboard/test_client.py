"""The client against a real server."""

import json
import re
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

import dartboard
from dartboard import (
    Client,
    ConflictError,
    DartboardError,
    InvalidRequestError,
    InvalidSpecError,
    NotFoundError,
    ServerFailedError,
    ServerUnreachableError,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from dartboard.models import Search
from dartboard.settings import DEFAULT_URL, Settings
from search_core.spec import SearchSpec
from store.logs import runner_log, trial_log
from tests.dartboard.conftest import GENOTYPES, SPEC, Served, Worker


def test_submitting_many_typed_and_plain(client: Client) -> None:
    typed = SearchSpec.model_validate({**SPEC, "name": "typed"})
    searches = client.submit_all(spec for spec in (SPEC, typed))
    assert [search.name for search in searches] == ["small", "typed"]
    listed = client.list(oldest_first=True)
    assert [search.id for search in listed] == [search.id for search in searches]
    assert [each.num_trials for each in client.dry_run_all([SPEC, typed])] == [2, 2]
    with pytest.raises(InvalidSpecError) as refused:
        client.submit_all([SPEC, {**SPEC, "training": {"epochs": 0}}])
    assert [error.pointer for error in refused.value.errors] == ["/searches/1/training/epochs"]
    with pytest.raises(InvalidSpecError, match="/searches/0/name"):
        client.submit_all([{"name": {1, 2}}])
    assert len(list(client.list())) == 2


def test_every_exported_name_exists() -> None:
    for name in dartboard.__all__:
        assert getattr(dartboard, name) is not None
    assert {"Client", "Search", "__version__"} <= {*dir(dartboard)}
    with pytest.raises(AttributeError, match="no attribute 'Kleint'"):
        dartboard.Kleint  # noqa: B018


def test_a_search_from_submission_to_genotype(client: Client, worker: Worker) -> None:
    submitted = client.submit(SPEC, priority=3, labels={"team": "vision"})
    assert submitted.status == "queued"
    waiting = client.get(submitted.id).waiting
    assert waiting is not None
    assert waiting.position == 1
    assert submitted.priority == 3

    worker.run()
    search = client.get(submitted.id)
    assert search.ended
    assert search.status == "succeeded"
    assert search.recommended is not None
    assert search.recommended.architecture == GENOTYPES[1].hash
    assert search.best_validation_accuracy == pytest.approx(0.61)
    assert client.wait(search.id) == search

    ranked = client.architectures(search.id)
    assert [each.recommended for each in ranked] == [True, False]
    assert client.genotype(ranked[0].architecture) == GENOTYPES[1]
    found = client.architecture(ranked[0].architecture)
    assert found.text == GENOTYPES[1].to_text()
    assert [each.search_id for each in found.found_by] == [search.id]
    assert client.picture(found.hash, "normal").lstrip().startswith(b"<?xml")
    assert b"digraph" in client.picture(found.hash, format="dot")


def test_trials_and_their_metrics(client: Client, worker: Worker) -> None:
    search = client.submit(SPEC)
    worker.run()
    first, second = client.trials(search.id)
    assert (first.number, second.number) == (0, 1)
    assert client.trial(second.id) == second
    assert second.relaxation == "fast"
    series = client.metrics(first.id, ["train_loss", "validation_loss"])
    assert {name: [point.value for point in points] for name, points in series.items()} == {
        "train_loss": [1.0, 0.5],
        "validation_loss": [None, 0.5],
    }
    assert set(client.metrics(first.id, after_step=1)) == {
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "seconds",
        "steps_per_second",
        "images_per_second",
        "peak_memory_bytes",
    }


def test_a_typed_spec_and_a_mapping_give_the_same_search(client: Client) -> None:
    by_mapping = client.submit(SPEC)
    by_type = client.submit(SearchSpec.model_validate(SPEC))
    assert by_mapping.parsed_spec() == by_type.parsed_spec()


def test_fields_override_below_the_first_level(client: Client) -> None:
    search = client.submit(SPEC, training={"batch_size": 32}, preset=None)
    assert search.spec["training"]["batch_size"] == 32
    assert search.spec["training"]["epochs"] == 2


def test_the_list_goes_over_all_pages_and_filters(client: Client) -> None:
    submitted = [client.submit(SPEC, name=f"n{number}").id for number in range(5)]
    client.cancel(submitted[0])
    assert [each.id for each in client.list(page_size=2)] == submitted[::-1]
    assert [each.id for each in client.list(page_size=2, oldest_first=True)] == submitted
    assert [each.id for each in client.list(status="cancelled")] == submitted[:1]
    assert [each.id for each in client.list(status=["queued"], name="n3")] == submitted[3:4]
    assert list(client.list(labels={"team": "audio"})) == []
    middle = client.get(submitted[2]).created_at
    assert [each.id for each in client.list(created_after=middle)] == submitted[:1:-1]
    assert [each.id for each in client.list(created_before=middle)] == submitted[1::-1]


def test_cancelling(client: Client, worker: Worker) -> None:
    waiting, running = client.submit(SPEC).id, client.submit(SPEC, priority=1).id
    lease = worker.claim()
    assert lease.search_id == running
    assert client.cancel(waiting).status == "cancelled"
    assert client.cancel(waiting).status == "cancelled"
    assert client.cancel(running).cancel_requested_at is not None
    worker.give_back(lease)
    client.submit(SPEC)
    ended = worker.run()
    with pytest.raises(ConflictError, match="succeeded"):
        client.cancel(ended)


def test_the_queue_the_presets_and_readiness(client: Client, worker: Worker) -> None:
    search = client.submit(SPEC)
    assert not client.ready().ready
    assert not client.ready().checks["dispatcher"].ok
    worker.sign_on()
    assert client.ready().ready
    queue = client.queue()
    assert queue.counts["queued"] == 1
    assert queue.waiting[0].search_id == search.id
    assert queue.cluster.cpus == 2
    assert [each.pid for each in queue.dispatchers] == [1]
    worker.claim()
    assert client.queue().running[0].search_id == search.id
    preset = client.presets()[0]
    assert client.dry_run(preset=preset.name).spec == preset.spec


def test_a_bad_spec_points_at_each_field(client: Client) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        client.submit(SPEC, space={"kind": "darts", "channels": 0}, training={"epohcs": 1})
    assert {error.pointer for error in caught.value.errors} == {
        "/space/channels",
        "/training/epohcs",
    }
    lines = str(caught.value).splitlines()
    assert lines[0] == "The spec is not valid"
    assert [line.split(":")[0] for line in lines[1:]] == ["  /space/channels", "  /training/epohcs"]
    assert list(client.list()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_is_not_json_is_refused_before_it_is_sent(client: Client, value: object) -> None:
    with pytest.raises(InvalidSpecError, match="/training/learning_rate"):
        client.submit(SPEC, training={"learning_rate": value})


def test_ids_that_are_none(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no search"):
        client.get(uuid4())
    with pytest.raises(NotFoundError):
        client.genotype("0" * 64)
    for wrong in ("", "x", "../presets", "a b"):
        with pytest.raises((InvalidRequestError, NotFoundError)):
            client.get(wrong)


def test_waiting_gives_up_in_time(client: Client) -> None:
    search = client.submit(SPEC)
    with pytest.raises(WaitTimeoutError):
        client.wait(search.id, timeout=0.1)
    with pytest.raises(TimeoutError):
        client.wait(search.id, timeout=0)


def test_without_a_server_the_message_says_what_to_do(server: Served) -> None:
    server.stop()
    with Client(server.url) as client:
        with pytest.raises(ServerUnreachableError, match="dartboard up"):
            client.queue()
        with pytest.raises(ServerUnreachableError, match="dartboard up"):
            client.submit(SPEC)


@pytest.mark.parametrize("url", ["", " ", "localhost:8000", "ftp://here", "http://", "::"])
def test_a_wrong_address_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARTBOARD_URL", "nonsense")
    with pytest.raises(DartboardError, match="write it like http"):
        Client(url)


def test_something_else_that_listens_there_is_told() -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/queue" else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>hello</h1>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever, args=(0.01,))
        thread.start()
        with Client(f"http://127.0.0.1:{stranger.server_port}") as client:
            with pytest.raises(UnexpectedAnswerError, match="Is the address right"):
                client.queue()
            with pytest.raises(UnexpectedAnswerError, match="something else"):
                client.presets()
            with pytest.raises(UnexpectedAnswerError, match="something else"):
                next(client.follow(uuid4()))
        stranger.shutdown()
        thread.join()


def test_a_get_is_tried_again_when_its_connection_fails(client: Client, server: Served) -> None:
    client.queue()
    server.stop()
    later = threading.Timer(0.05, server.start)
    later.start()
    assert client.queue().counts["queued"] == 0
    later.join()


def test_fields_of_a_newer_server_are_left_out(client: Client) -> None:
    document = client.submit(SPEC).model_dump(mode="json")
    newer = {**document, "owner": "ada", "status": "paused"}
    newer["trials"] = [{**trial, "profile": {}} for trial in newer["trials"]]
    assert Search.model_validate_json(json.dumps(newer)).status == "paused"


def test_the_address_comes_from_the_environment_then_from_up(tmp_path: Path) -> None:
    environment = {"DARTBOARD_HOME": str(tmp_path), "DARTBOARD_URL": ""}
    assert Settings.read(environment).server_url() == DEFAULT_URL
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:1234"}')
    assert Settings.read(environment).server_url() == "http://127.0.0.1:1234"
    named = Settings.read({**environment, "DARTBOARD_URL": "http://there:80"})
    assert named.server_url() == "http://there:80"
    (tmp_path / "server.json").write_text("half of i")
    assert Settings.read(environment).server_url() == DEFAULT_URL
    with pytest.raises(DartboardError, match="DARTBOARD_PORT"):
        Settings.read({"DARTBOARD_PORT": "80000"})


def test_times_are_written_as_the_server_writes_them(client: Client) -> None:
    search = client.submit(SPEC)
    written = search.model_dump(mode="json")["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", written)
    assert datetime.fromisoformat(written) == search.created_at


def test_logs_of_searches_and_trainings(server: Served, client: Client) -> None:
    search = client.submit(SPEC)
    assert client.logs(search) == client.logs(str(search.id)) == ()
    server.keep_log(search.id, runner_log(1), "one\ntwo\n")
    server.keep_log(search.id, trial_log(0, 1), "three\n")
    runner, trial = client.logs(search)
    assert (runner.name, runner.trial, runner.attempt, runner.size) == (
        "runner-attempt-1.log", None, 1, 8,
    )  # fmt: skip
    assert (trial.trial, trial.modified_at.tzinfo) == (0, UTC)
    assert client.log(search.id, runner.name) == "one\ntwo\n"
    assert client.log(search, runner.name, tail=1) == "two\n"
    training = client.train({"architecture": GENOTYPES[0].model_dump(mode="json")})
    server.keep_log(training.id, runner_log(1), "of a training\n")
    assert client.log(training, client.logs(training)[0].name) == "of a training\n"
    for name in ("runner-attempt-2.log", "../runner-attempt-1.log"):
        with pytest.raises((NotFoundError, InvalidRequestError)):
            client.log(search, name)
    with pytest.raises(NotFoundError):
        client.logs(uuid4())


def test_a_storage_that_is_away_is_an_error_of_the_server(server: Served, client: Client) -> None:
    search = client.submit(SPEC)
    server.storage.rmdir()
    assert client.logs(search) == ()
    server.storage.write_text("a file where the storage should be")
    with pytest.raises(ServerFailedError, match="DARTBOARD_STORAGE"):
        client.logs(search)
