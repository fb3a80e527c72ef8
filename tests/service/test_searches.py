"""Listing, looking at and cancelling searches; trials, metrics and the queue."""

from datetime import datetime, timedelta

import pytest

from tests.service.conftest import Api, Worker


def test_pages_hold_every_search_once_in_order(api: Api) -> None:
    ids = [api.submit(name=str(number))["id"] for number in range(7)]
    for sort, expected in (("created", ids), ("-created", ids[::-1])):
        seen: list[str] = []
        cursor = ""
        while True:
            page = api.get(f"/v1/searches?limit=3&sort={sort}{cursor}").json()
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert seen == expected


def test_filters_narrow_the_list(api: Api, worker: Worker) -> None:
    first = api.submit(name="a b", labels={"team": "vision", "run": "1"})
    second = api.submit(name="ß", space={"kind": "sharp_darts", "cells": 3}, labels={"run": "2"})
    api.post(f"/v1/searches/{second['id']}/cancel")
    worker.claim()
    later = datetime.fromisoformat(second["created_at"]) + timedelta(milliseconds=1)
    cases = {
        "status=running": [first],
        "status=running&status=cancelled": [second, first],
        "status=failed": [],
        "space=sharp_darts": [second],
        "name=a%20b": [first],
        "name=%C3%9F": [second],
        "label=team:vision": [first],
        "label=team:vision&label=run:1": [first],
        "label=team:vision&label=run:2": [],
        f"created_after={first['created_at']}": [second, first],
        f"created_after={later.isoformat().replace('+', '%2B')}": [],
        f"created_before={first['created_at']}": [],
    }
    for query, expected in cases.items():
        items = api.get(f"/v1/searches?{query}").json()["items"]
        assert [item["id"] for item in items] == [item["id"] for item in expected], query


def test_the_list_says_the_same_as_the_search(api: Api, worker: Worker) -> None:
    worker.heartbeat()
    api.submit()
    worker.run_to_the_end()
    for priority, cpus in ((0, 1), (5, 64), (5, 1), (0, 1), (9, 2)):
        api.submit(priority=priority, resources={"cpus": cpus})
    items = api.get("/v1/searches?sort=created").json()["items"]
    places = [item["waiting"] and item["waiting"]["position"] for item in items]
    assert places == [None, 4, 2, 3, 5, 1]
    for item in items:
        now = api.get(f"/v1/searches/{item['id']}").json()
        if now["waiting"]:
            # What starts at once was asked for at two moments.
            now["waiting"]["estimated_start"] = item["waiting"]["estimated_start"]
        assert now == item
    queue = {place["search_id"]: place["why"] for place in api.get("/v1/queue").json()["waiting"]}
    assert queue == {item["id"]: item["waiting"]["why"] for item in items[1:]}


def test_a_finished_search_recommends_its_best_architecture(api: Api, worker: Worker) -> None:
    search_id = worker.submit()
    worker.run_to_the_end()
    search = api.get(f"/v1/searches/{search_id}").json()
    assert (search["status"], search["reason"], search["waiting"]) == (
        "succeeded",
        "completed",
        None,
    )
    best = search["trials"][1]
    assert search["recommended"]["architecture"] == best["architecture"]
    assert "seed 7" in search["recommended"]["why"]
    assert (best["epoch"], best["metrics"]["validation_accuracy"]) == (3, 0.53)
    assert api.get(f"/v1/trials/{best['id']}").json() == best
    assert api.get(f"/v1/searches/{search_id}/trials").json()["items"] == search["trials"]


def test_cancelling_is_idempotent(api: Api) -> None:
    search = api.submit()
    first = api.post(f"/v1/searches/{search['id']}/cancel")
    second = api.post(f"/v1/searches/{search['id']}/cancel")
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["status"] == "cancelled"
    assert {trial["status"] for trial in first.json()["trials"]} == {"cancelled"}
    assert api.get(f"/v1/searches/{search['id']}/events").json()["last"] == 2


def test_cancelling_a_running_search_asks_its_runner_once(api: Api, worker: Worker) -> None:
    search_id = worker.submit()
    worker.claim()
    answers = [api.post(f"/v1/searches/{search_id}/cancel").json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["status"] == "running"
    assert answers[0]["cancel_requested_at"] is not None
    events = api.get(f"/v1/searches/{search_id}/events").json()["items"]
    assert [event["kind"] for event in events].count("search.cancel_requested") == 1


def test_cancelling_what_succeeded_is_a_conflict(api: Api, worker: Worker) -> None:
    search_id = worker.submit()
    worker.run_to_the_end()
    answer = api.post(f"/v1/searches/{search_id}/cancel")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:dartboard:problem:conflict"
    assert "succeeded" in answer.json()["detail"]
    assert api.get(f"/v1/searches/{search_id}").json()["status"] == "succeeded"


@pytest.fixture
def trial_id(api: Api, worker: Worker) -> str:
    """A trial with two epochs, the first of which lost its loss."""
    search_id = worker.submit()
    lease = worker.claim()
    worker.epoch(lease, 1, train_loss=float("nan"))
    worker.epoch(lease, 2)
    trial: str = api.get(f"/v1/searches/{search_id}/trials").json()["items"][0]["id"]
    return trial


def test_metrics_come_as_series(api: Api, trial_id: str) -> None:
    answer = api.get(f"/v1/trials/{trial_id}/metrics").json()
    assert answer["trial_id"] == trial_id
    assert answer["series"] == {
        "train_loss": [{"step": 1, "value": None}, {"step": 2, "value": 0.5}],
        "validation_accuracy": [{"step": 1, "value": 0.51}, {"step": 2, "value": 0.52}],
    }


def test_metrics_can_be_chosen(api: Api, trial_id: str) -> None:
    path = f"/v1/trials/{trial_id}/metrics"
    for query in ("names=train_loss&after_step=1", "names=train_loss,nothing&after_step=1"):
        series = api.get(f"{path}?{query}").json()["series"]
        assert series == {"train_loss": [{"step": 2, "value": 0.5}]}
    both = api.get(f"{path}?names=train_loss&names=validation_accuracy").json()["series"]
    assert len(both) == 2
    assert api.get(f"{path}?names=%00").status_code == 422


def test_metrics_come_as_csv(api: Api, trial_id: str) -> None:
    answer = api.get(f"/v1/trials/{trial_id}/metrics", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == (
        "name,step,value\ntrain_loss,1,\ntrain_loss,2,0.5\n"
        "validation_accuracy,1,0.51\nvalidation_accuracy,2,0.52\n"
    )


def test_the_queue_shows_who_waits_and_who_runs(api: Api, worker: Worker) -> None:
    worker.heartbeat()
    running, waiting = worker.submit(name="runs"), worker.submit(name="waits")
    worker.epoch(worker.claim(), 1)
    queue = api.get("/v1/queue").json()
    assert queue["counts"] == {
        "queued": 1,
        "running": 1,
        "paused": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
    }
    (first,) = queue["waiting"]
    assert (first["search_id"], first["name"], first["position"]) == (waiting, "waits", 1)
    assert first["why"]
    (held,) = queue["running"]
    assert (held["search_id"], held["holder"], held["cpus"]) == (running, "box:2", 2)
    assert held["trials"][0] == {"number": 0, "status": "queued", "epoch": 1, "epochs": 3}
    cluster = queue["cluster"]
    assert (cluster["cpus"], cluster["reserved_cpus"], cluster["reserved_gpus"]) == (4, 2, 0)
    assert cluster["nodes"] == [{"cpus": 4.0, "gpus": 0.0, "memory": None, "custom": {}}]
    assert [dispatcher["id"] for dispatcher in queue["dispatchers"]] == ["box:1"]
