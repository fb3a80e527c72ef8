"""Trainings through the client and the command, against a real server."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from dartboard import Client, ConflictError, InvalidSpecError, NotFoundError
from search_core.spec.retraining import RetrainingSpec
from store import recording
from store.logs import runner_log
from store.sessions import transaction
from tests.dartboard.conftest import GENOTYPES, SPEC, Dartboard, Served, Worker

TRAINING: dict[str, Any] = {
    "name": "worth",
    "architecture": GENOTYPES[0].model_dump(mode="json"),
    "training": {"epochs": 2},
    "trials": {"seeds": [0, 1]},
}
RESULT = {
    "last": {"epoch": 2, "loss": 0.5, "accuracy": 0.875, "extra_accuracies": {"cifar10_1": 0.75}},
    "best": {"epoch": 1, "loss": 0.4, "accuracy": 0.9, "extra_accuracies": {}},
}


def run(engine: Engine, worker: Worker) -> None:
    """Runs the next training to a good end."""
    lease = worker.claim()
    with transaction(engine) as session:
        trial_ids = [trial.id for trial in recording.open_trials(session, lease)]
    for trial_id in trial_ids:
        worker.train(lease, trial_id, epochs=2, genotype=GENOTYPES[0])
        with transaction(engine) as session:
            recording.trial_succeeded(session, lease, trial_id, GENOTYPES[0], RESULT)
    worker.finish(lease)


def test_a_training_from_submission_to_result(
    client: Client, worker: Worker, engine: Engine
) -> None:
    told = client.dry_run_training(TRAINING)
    assert (told.num_trials, told.epochs) == (2, 2)
    submitted = client.train(TRAINING, priority=3)
    assert (submitted.status, submitted.priority) == ("queued", 3)
    assert submitted.parsed_spec().genotype == GENOTYPES[0]
    run(engine, worker)
    training = client.wait(submitted)
    assert training == client.get(submitted) == client.training(submitted.id)
    assert training.status == "succeeded"
    results = [trial.result for trial in client.trials(training)]
    for result in results:
        assert result is not None
        assert result.best is not None
        assert (result.last.accuracy, result.best.accuracy) == (0.875, 0.9)
        assert result.last.extra_accuracies == {"cifar10_1": 0.75}
    kinds = [event.kind for event in client.follow(training)]
    assert (kinds[0], kinds[-1]) == ("training.queued", "training.succeeded")
    assert client.events(training).last == len(kinds)
    with pytest.raises(ConflictError, match=r"Training .* is succeeded"):
        client.cancel(training)


def test_a_typed_spec_and_fields(client: Client) -> None:
    spec = RetrainingSpec.model_validate(TRAINING)
    assert client.train(spec).parsed_spec() == spec
    named = client.train(preset="retrain-digits", architecture="DARTS_V2")
    assert named.spec["architecture"] == "DARTS_V2"
    with pytest.raises(InvalidSpecError) as caught:
        client.train(architecture="DARTS_V9")
    assert [error.pointer for error in caught.value.errors] == ["/architecture"]


def test_what_a_search_found_is_trained_by_its_hash(client: Client, worker: Worker) -> None:
    client.submit(SPEC, space={"kind": "sharp_darts", "nodes": 1})
    search = client.get(worker.run())
    assert search.recommended is not None
    training = client.train(architecture=search.recommended.architecture)
    spec = training.parsed_spec()
    assert spec.genotype == client.genotype(search.recommended.architecture)
    assert spec.family == "sharp"


def test_trainings_are_listed_and_cancelled_by_themselves(client: Client) -> None:
    client.submit(SPEC)
    ids = [client.train(TRAINING, name=f"t{number}").id for number in range(3)]
    assert [each.id for each in client.trainings(page_size=2)] == ids[::-1]
    assert [each.id for each in client.trainings(name="t1")] == ids[1:2]
    assert len(list(client.list())) == 1
    assert client.cancel(client.training(ids[0])).status == "cancelled"
    assert [each.id for each in client.trainings(status="cancelled")] == ids[:1]
    middle = client.training(ids[1]).created_at
    assert [each.id for each in client.trainings(created_after=middle)] == ids[:0:-1]
    assert [each.id for each in client.trainings(created_before=middle)] == ids[:1]
    with pytest.raises(NotFoundError):
        client.get(ids[1])
    with pytest.raises(NotFoundError):
        client.training(uuid4())
    assert {preset.kind for preset in client.presets()} == {"search", "training"}
    assert [line.kind for line in client.queue().waiting] == ["search", "training", "training"]


def test_the_command_trains_and_follows(
    dartboard: Dartboard, client: Client, server: Served, worker: Worker, engine: Engine
) -> None:
    said = dartboard(
        *("train", "-a", GENOTYPES[0].hash, "--preset", "retrain-digits", "--json"),
    )
    assert said.code == 1
    assert "no architecture" in said.err
    said = dartboard(
        *("train", "-a", "DARTS_V2", "--name", "worth", "--set", "training.epochs=2"),
        *("--set", "network.channels=4", "--set", "trials.seeds=[0,1]", "--json"),
    )
    assert said.code == 0, said.err
    training = said.json
    assert training["spec"]["network"]["channels"] == 4
    run(engine, worker)
    followed = dartboard("follow", training["id"])
    assert followed.code == 0
    assert "test accuracy 0.8750 after the last epoch, 0.9000 at epoch 1" in followed.out
    assert "cifar10_1: 0.7500" in followed.out
    shown = dartboard("show", training["id"])
    assert "DARTS_V2 (4 channels" in shown.out
    assert "test accuracy 0.8750" in shown.out
    listed = dartboard("trainings")
    assert training["id"] in listed.out
    assert dartboard("trainings", "--status", "queued", "--json").json == []
    refused = dartboard("cancel", training["id"])
    assert (refused.code, "succeeded" in refused.err) == (1, True)


def test_the_command_takes_an_architecture_in_any_form(
    dartboard: Dartboard, client: Client, server: Served, worker: Worker, tmp_path: Path
) -> None:
    genotype = GENOTYPES[0]
    (tmp_path / "found.json").write_text(genotype.model_dump_json())
    forms = [genotype.model_dump_json(), genotype.to_text(), str(tmp_path / "found.json")]
    client.submit(SPEC)
    search = client.get(worker.run())
    assert search.recommended is not None
    found = search.recommended.architecture
    for form in [*forms, found, found[:10], found[:10].upper(), str(search.id), "last"]:
        said = dartboard("train", "-a", form, "--preset", "retrain-digits", "--json")
        assert said.code == 0, said.err
        wanted = genotype if form in forms else client.genotype(found)
        assert client.training(said.json["id"]).parsed_spec().genotype == wanted
    (tmp_path / "bad.json").write_text('{"kind": "cell"}')
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for form, why in (
        ("DARTS_V9", "no published architecture, no file with a genotype, no hash and no search"),
        ("{}", "the genotype: "),
        (str(tmp_path / "bad.json"), "bad.json: "),
        (str(tmp_path / "binary"), "cannot be read"),
        ("ffffffff", "no search's id starts with 'ffffffff'"),
    ):
        said = dartboard("train", "-a", form, "--dry-run", "--json")
        assert said.code in (1, 2)
        assert why in json.loads(said.err)["message"]


def test_what_is_no_architecture_is_told(dartboard: Dartboard, server: Served) -> None:
    said = dartboard("draw", "DARTS_V2")
    assert said.code == 2
    assert "no hash of an architecture, no id of a search" in " ".join(said.err.split())


def test_an_id_may_be_shortened_or_the_last_of_both_kinds(
    dartboard: Dartboard, client: Client, server: Served
) -> None:
    training = client.train(TRAINING, name="older")
    assert dartboard("show", "last", "--json").json["name"] == "older"
    search = client.submit(SPEC, name="newer")
    assert dartboard("show", "last", "--json").json["name"] == "newer"
    # What starts both ids is ambiguous, and one character more is not.
    pairs = list(zip(str(training.id), str(search.id), strict=True))
    common = [one == other for one, other in pairs].index(False)
    ambiguous = dartboard("show", str(training.id)[:common])
    assert ambiguous.code == 2
    for each in (training, search):
        assert str(each.id) in ambiguous.err
        assert dartboard("show", str(each.id)[: common + 1], "--json").json["id"] == str(each.id)
    # Only a search has something to draw.
    assert str(search.id) in dartboard("genotype", "last").err
    newest = client.train(TRAINING)
    server.keep_log(newest.id, runner_log(1), "of the training\n")
    assert dartboard("logs", "last").out == "of the training\n"
    assert dartboard("cancel", "last").out == f"{newest.id} is cancelled.\n"
    assert dartboard("follow", "last", "--json").out.count("training.cancelled") == 1
    assert [client.get(each).status for each in (search, training)] == ["queued", "queued"]


def test_the_command_trains_a_path(dartboard: Dartboard, client: Client, server: Served) -> None:
    arguments = ("train", "-a", "HYPERCUBOID_HANDMADE", "--preset", "retrain-digits")
    said = dartboard(*arguments, "--json")
    assert said.code == 0, said.err
    assert said.json["spec"]["network"] == {"kind": "path"}
    assert client.training(said.json["id"]).parsed_spec().genotype.kind == "path"
    assert "HYPERCUBOID_HANDMADE (path) on digits" in dartboard("show", said.json["id"]).out
    refused = dartboard(*arguments, "--set", "network.channels=4")
    assert refused.code == 1
    assert "/network/channels: channels is a setting of networks of cells" in refused.err


def test_the_command_says_what_a_training_would_run(dartboard: Dartboard, server: Served) -> None:
    said = dartboard("train", "-a", "DARTS_V2", "--preset", "retrain-digits", "--dry-run")
    assert "1 trial of 20 epochs" in said.out
    assert dartboard("train").code == 2
    assert "retrain-digits" in dartboard("presets").out
    wrong = dartboard("train", "-a", "DARTS_V2", "--set", "training.epochs.x=1")
    assert wrong.code == 2
