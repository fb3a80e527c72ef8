"""`/v1/trainings`: submitted, listed, looked at and cancelled beside the searches."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine

from search_core import published
from search_core.spec.retraining import RetrainingSpec
from store import recording
from store.sessions import transaction
from tests.service.conftest import Api, Worker, genotype

GENOTYPE = genotype().model_dump(mode="json")
SPEC: dict[str, Any] = {
    "name": "first",
    "architecture": GENOTYPE,
    "network": {"channels": 2, "cells": 3},
    "training": {"epochs": 3, "batch_size": 32},
    "trials": {"seeds": [0, 7]},
    "labels": {"team": "vision"},
}
HANDMADE = "HYPERCUBOID_HANDMADE"
PATH_STEP: dict[str, Any] = {
    "level": 0,
    "stride": 1,
    "in_channels": 4,
    "out_channels": 4,
    "operation": "conv",
}
RESULT = {
    "last": {"epoch": 3, "loss": 0.5, "accuracy": 0.9, "extra_accuracies": {}},
    "best": {"epoch": 2, "loss": float("nan"), "accuracy": 0.8, "extra_accuracies": {}},
}
STREAM = {"Accept": "text/event-stream"}


def train(api: Api, **changes: Any) -> dict[str, Any]:
    answer = api.post("/v1/trainings", json={**SPEC, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


def run_to_the_end(engine: Engine, worker: Worker) -> None:
    """Runs the first of the queue, a training."""
    lease = worker.claim()
    for trial in (0, 1):
        worker.epoch(lease, 3, trial)
    with transaction(engine) as session:
        for trial_row in recording.open_trials(session, lease):
            recording.trial_succeeded(session, lease, trial_row.id, genotype(), RESULT)
    worker.finish(lease)


def test_a_training_is_stored_before_it_is_answered(api: Api) -> None:
    answer = api.post("/v1/trainings", json=SPEC)
    assert answer.status_code == 201
    training = answer.json()
    assert answer.headers["location"] == f"/v1/trainings/{training['id']}"
    now = api.get(answer.headers["location"]).json()
    assert {**now, "waiting": None} == training
    assert (training["status"], training["name"]) == ("queued", "first")
    assert now["waiting"] == {
        "position": 1,
        "why": "no dispatcher is running",
        "estimated_start": None,
    }
    assert [trial["seed"] for trial in training["trials"]] == [0, 7]
    assert "recommended" not in training
    spec = RetrainingSpec.model_validate_json(json.dumps(training["spec"]))
    assert spec.genotype == genotype()


def test_its_trials_have_the_test_accuracies_once_it_ended(
    api: Api, worker: Worker, engine: Engine
) -> None:
    training = train(api)
    assert [trial["result"] for trial in training["trials"]] == [None, None]
    run_to_the_end(engine, worker)
    ended = api.get(f"/v1/trainings/{training['id']}").json()
    assert (ended["status"], ended["reason"], ended["waiting"]) == ("succeeded", "completed", None)
    expected = {"last": RESULT["last"], "best": {**RESULT["best"], "loss": None}}
    assert [trial["result"] for trial in ended["trials"]] == [expected] * 2
    assert {trial["architecture"] for trial in ended["trials"]} == {genotype().hash}
    trials = api.get(f"/v1/trainings/{training['id']}/trials").json()["items"]
    assert trials == ended["trials"]
    assert api.get(f"/v1/trials/{trials[0]['id']}").json() == trials[0]
    events = api.get(f"/v1/trainings/{training['id']}/events").json()["items"]
    assert (events[0]["kind"], events[-1]["kind"]) == ("training.queued", "training.succeeded")
    assert [event["data"]["result"] for event in events if event["kind"] == "trial.succeeded"] == [
        expected
    ] * 2
    stream = api.get(f"/v1/trainings/{training['id']}/events", headers=STREAM)
    assert stream.text.count("\nid: ") == len(events)
    # The architecture can be looked at, and nobody is said to have found it.
    architecture = api.get(f"/v1/architectures/{genotype().hash}").json()
    assert architecture["found_by"] == []


def test_each_kind_has_its_own_paths(api: Api) -> None:
    search, training = api.submit()["id"], train(api)["id"]
    for paths, mine, other, noun in (
        ("/v1/searches", search, training, "search"),
        ("/v1/trainings", training, search, "training"),
    ):
        assert [item["id"] for item in api.get(paths).json()["items"]] == [mine]
        for rest in ("", "/trials", "/events"):
            assert api.get(f"{paths}/{mine}{rest}").status_code == 200
            answer = api.get(f"{paths}/{other}{rest}")
            assert answer.status_code == 404, rest
            assert f"There is no {noun} {other}. GET {paths}" in answer.json()["detail"]
        assert api.get(f"{paths}/{other}/events", headers=STREAM).status_code == 404
        assert api.post(f"{paths}/{other}/cancel").status_code == 404
    assert api.get(f"/v1/searches/{training}/architectures").status_code == 404
    waiting = api.get("/v1/queue").json()["waiting"]
    assert [(line["search_id"], line["kind"]) for line in waiting] == [
        (search, "search"),
        (training, "training"),
    ]


def test_cancelling(api: Api, worker: Worker, engine: Engine) -> None:
    waiting = train(api)["id"]
    for _ in range(2):
        answer = api.post(f"/v1/trainings/{waiting}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    ended = train(api)["id"]
    run_to_the_end(engine, worker)
    answer = api.post(f"/v1/trainings/{ended}/cancel")
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(f"Training {ended} is succeeded")


def test_the_list_filters_and_pages(api: Api) -> None:
    api.submit()
    first, second = train(api, name="a")["id"], train(api, labels={"team": "audio"})["id"]
    api.post(f"/v1/trainings/{first}/cancel")
    for query, expected in {
        "": [second, first],
        "sort=created": [first, second],
        "name=a": [first],
        "label=team:audio": [second],
        "status=cancelled": [first],
    }.items():
        items = api.get(f"/v1/trainings?{query}").json()["items"]
        assert [item["id"] for item in items] == expected, query
    page = api.get("/v1/trainings?limit=1").json()
    rest = api.get(f"/v1/trainings?limit=1&cursor={page['next_cursor']}").json()
    assert [item["id"] for item in page["items"] + rest["items"]] == [second, first]
    assert rest["next_cursor"] is None


def test_an_architecture_by_its_published_name(api: Api) -> None:
    spec = train(api, architecture="DARTS_V2")["spec"]
    assert spec["architecture"] == "DARTS_V2"
    body = json.dumps(spec)
    assert RetrainingSpec.model_validate_json(body).genotype == published.get("DARTS_V2").genotype


@pytest.mark.parametrize("network", [{}, {"network": {}}, {"network": {"kind": "path"}}])
def test_a_path_by_its_published_name_or_as_a_genotype(api: Api, network: dict[str, Any]) -> None:
    genotype = published.get(HANDMADE).genotype
    body: dict[str, Any] = {"preset": "retrain-digits", **network}
    for architecture in (
        HANDMADE,
        genotype.model_dump(mode="json"),
        json.loads(genotype.to_json()),
    ):
        answer = api.post("/v1/trainings", json={**body, "architecture": architecture})
        assert answer.status_code == 201, answer.text
        spec = answer.json()["spec"]
        assert spec["network"] == {"kind": "path"}
        assert spec["training"]["epochs"] == 20
        assert RetrainingSpec.model_validate_json(json.dumps(spec)).genotype == genotype
    told = api.post("/v1/trainings?dry_run=true", json={**body, "architecture": HANDMADE})
    assert told.json()["spec"] == {**spec, "architecture": HANDMADE}


def test_an_architecture_by_its_hash(api: Api, worker: Worker) -> None:
    worker.store(genotype("dil_conv_3x3"))
    spec = train(api, architecture=genotype("dil_conv_3x3").hash)["spec"]
    assert spec["architecture"] == genotype("dil_conv_3x3").model_dump(mode="json")
    # No search found it.
    assert spec["network"]["family"] is None
    answer = api.post("/v1/trainings", json={**SPEC, "architecture": "0" * 64})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/architecture"
    assert "GET /v1/searches/{id}/architectures" in error["message"]


def find(api: Api, worker: Worker, **space: Any) -> None:
    """Runs a search of a space that finds `genotype()` and `genotype("max_pool_3x3")`."""
    api.submit(space={"channels": 2, "cells": 3, "nodes": 1, **space})
    worker.run_to_the_end()


@pytest.mark.parametrize(
    ("space", "family"),
    [
        ({"kind": "darts"}, "darts"),
        ({"kind": "sharp_darts"}, "sharp"),
        ({"kind": "darts", "family": "sharp"}, "sharp"),
    ],
)
def test_a_hash_brings_the_family_of_the_searches_that_found_it(
    api: Api, worker: Worker, engine: Engine, space: dict[str, str], family: str
) -> None:
    for _ in range(2):
        find(api, worker, **space)
    # A training of the other family has found nothing.
    other = {"darts": "sharp", "sharp": "darts"}[family]
    train(api, network={"channels": 2, "cells": 3, "family": other})
    run_to_the_end(engine, worker)
    by_hash = {**SPEC, "architecture": genotype().hash}
    for network in ({}, {"channels": 2, "cells": 3}, {"cells": 3, "family": None}):
        spec = train(api, **{**by_hash, "network": network})["spec"]
        assert spec["network"] == {
            **RetrainingSpec.model_validate({"architecture": "DARTS_V2"}).network.model_dump(),
            **network,
            "family": family,
        }
    del by_hash["network"]
    told = api.post("/v1/trainings?dry_run=true", json=by_hash).json()
    assert told["spec"]["network"]["family"] == family
    chosen = train(api, architecture=genotype().hash, network={"cells": 3, "family": other})
    assert chosen["spec"]["network"]["family"] == other
    # Without a hash, nobody is asked.
    assert train(api)["spec"]["network"]["family"] is None


def test_where_the_searches_differ_the_family_has_to_be_chosen(api: Api, worker: Worker) -> None:
    find(api, worker, kind="darts")
    find(api, worker, kind="sharper_darts")
    by_hash = {**SPEC, "architecture": genotype().hash}
    answer = api.post("/v1/trainings", json=by_hash)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/network/family"
    assert "(darts, sharp)" in error["message"]
    for family in ("darts", "sharp"):
        network = {"cells": 3, "family": family}
        assert train(api, **{**by_hash, "network": network})["spec"]["network"]["family"] == family


@pytest.mark.parametrize(
    ("network", "pointer"),
    [(7, "/network"), (None, "/network"), ({"family": 7}, "/network/family")],
)
def test_a_network_that_is_none_is_refused_with_a_hash_too(
    api: Api, worker: Worker, network: object, pointer: str
) -> None:
    find(api, worker, kind="darts")
    body = {**SPEC, "architecture": genotype().hash, "network": network}
    answer = api.post("/v1/trainings", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_path_by_its_hash(api: Api, worker: Worker) -> None:
    genotype = published.get(HANDMADE).genotype
    worker.store(genotype)
    answer = api.post("/v1/trainings", json={"architecture": genotype.hash})
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    assert (spec["architecture"], spec["network"]) == (
        genotype.model_dump(mode="json"),
        {"kind": "path"},
    )


def test_a_dry_run_stores_nothing(api: Api) -> None:
    answer = api.post("/v1/trainings?dry_run=true", json=SPEC)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["num_trials"], told["epochs"], told["trial_epochs"]) == (2, 3, 6)
    assert told["batches_per_epoch"] == told["images_for_weights"] // 32
    assert told["images_held_out"] > 0
    assert api.get("/v1/trainings").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/architecture"]),
        ({"preset": "retrain-digits"}, ["/architecture"]),
        ({"preset": "digits-quick", "architecture": "DARTS_V2"}, ["/preset"]),
        ({"architecture": "DARTS_V9"}, ["/architecture"]),
        ({"architecture": 7}, ["/architecture"]),
        ({"architecture": {**GENOTYPE, "normal": [["magic", 0]]}}, ["/architecture/normal"]),
        (
            {"architecture": {**GENOTYPE, "reduce": [["skip_connect", 0], ["skip_connect", "x"]]}},
            ["/architecture/reduce/1/1"],
        ),
        ({"architecture": {**GENOTYPE, "colour": 1}}, ["/architecture/colour"]),
        ({"architecture": "SHARP_DARTS", "network": {"family": "darts"}}, ["/network/family"]),
        ({"architecture": "DARTS_V2", "space": {"kind": "darts"}}, ["/space"]),
        ({"architecture": "DARTS_V2", "training": {"epochs": "3"}}, ["/training/epochs"]),
        (
            {"architecture": "DARTS_V2", "dataset": {"train_portion": 0.4}},
            ["/dataset/train_portion"],
        ),
        ({"architecture": "DARTS_V2", "priority": 101}, ["/priority"]),
        ({"architecture": "DARTS_V2", "network": {"kind": "path"}}, ["/network/kind"]),
        ({"architecture": "DARTS_V2", "network": {"kind": "tree"}}, ["/network/kind"]),
        ({"architecture": {"kind": "tree"}}, ["/architecture"]),
        ({"architecture": HANDMADE, "network": {"channels": 4}}, ["/network/channels"]),
        ({"architecture": HANDMADE, "network": {"kind": "cell"}}, ["/network/kind"]),
        ({"architecture": HANDMADE, "network": {"colour": 4}}, ["/network/colour"]),
        (
            {
                "preset": "retrain-digits",
                "architecture": {"steps": [PATH_STEP, {**PATH_STEP, "settings": {"size": 3}}]},
                "network": {"drop_path": 0.1},
            },
            ["/architecture/steps/1/settings/size", "/network/drop_path"],
        ),
        (
            {"architecture": {"steps": [PATH_STEP, {**PATH_STEP, "in_channels": 9}]}},
            ["/architecture/steps/1/in_channels"],
        ),
        (
            {"architecture": {"steps": [{**PATH_STEP, "settings": {"kernel_size": None}}]}},
            ["/architecture/steps/0/settings/kernel_size"],
        ),
        ([], [""]),
    ],
)
def test_each_offending_field_has_its_pointer(
    offline: Api, body: object, pointers: list[str]
) -> None:
    answer = offline.post("/v1/trainings", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers, answer.text


def test_what_is_no_json_is_told_so(offline: Api) -> None:
    headers = {"Content-Type": "application/json"}
    nested = b'{"architecture": ' + b"[" * 300 + b"]" * 300 + b"}"
    for body in (b"", b"{", nested):
        answer = offline.post("/v1/trainings", content=body, headers=headers)
        assert answer.status_code == 400, answer.text
    assert offline.post("/v1/trainings", content=b"{}").status_code == 415
    empty = offline.post("/v1/trainings", content=b"", headers=headers)
    assert '"architecture"' in empty.json()["detail"]
