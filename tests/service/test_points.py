"""Grids, samples and retries over HTTP."""

from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from store import recording, searches
from store.models import Search
from store.sessions import transaction
from store.states import Reason
from tests.service.conftest import Api, Worker, genotype

RATE = "training.learning_rate"


def counts(search: dict[str, Any]) -> tuple[int, int, int, int]:
    found = search["counts"]
    assert found["completed"] + found["failed"] + found["pending"] == found["total"]
    assert found["total"] == len(search["trials"])
    return found["total"], found["completed"], found["failed"], found["pending"]


def test_every_point_is_a_row_from_the_start(api: Api) -> None:
    grid = {RATE: [0.025, 0.1], "augmentation.cutout": [0, 2]}
    search = api.submit(trials={"seeds": [0, 7], "grid": grid})
    assert counts(search) == (8, 0, 0, 8)
    assert [trial["parameters"] for trial in search["trials"][:3]] == [
        {"augmentation.cutout": 0, RATE: 0.025},
        {"augmentation.cutout": 0, RATE: 0.025},
        {"augmentation.cutout": 0, RATE: 0.1},
    ]
    assert api.get(f"/v1/trials/{search['trials'][3]['id']}").json() == search["trials"][3]


def test_tpe_has_rows_without_parameters(api: Api) -> None:
    sample = {RATE: {"loguniform": [0.01, 0.1]}}
    search = api.submit(trials={"seeds": [0], "sample": sample, "num_samples": 3, "sampler": "tpe"})
    assert [trial["parameters"] for trial in search["trials"]] == [None] * 3
    assert search["spec"]["trials"]["sample"] == sample


def test_a_dry_run_counts_epochs_point_by_point(api: Api) -> None:
    trials = {"seeds": [0, 1], "grid": {"training.epochs": [1, 4], RATE: [0.1, 0.2, 0.3]}}
    body = {"space": {"kind": "darts"}, "trials": trials}
    dry = api.post("/v1/searches?dry_run=true", json=body).json()
    assert (dry["num_trials"], dry["epochs"], dry["trial_epochs"]) == (12, 4, 2 * 3 * 5)
    body = {"architecture": "DARTS_V2", "preset": "retrain-digits", "trials": trials}
    dry = api.post("/v1/trainings?dry_run=true", json=body).json()
    assert (dry["num_trials"], dry["epochs"], dry["trial_epochs"]) == (12, 4, 2 * 3 * 5)


@pytest.mark.parametrize(
    ("trials", "pointer", "message"),
    [
        (
            {"grid": {RATE: [0.1, "fast"]}},
            f"/trials/grid/{RATE}/1",
            "'fast' is not a number: write one without quotes",
        ),
        (
            {"grid": {"training.batch_size": [32, 5000]}},
            "/trials/grid/training.batch_size/1",
            "batch_size 5000 is above the 718 images of the smaller half of 'digits'",
        ),
        (
            {"grid": {"training.lr": [0.1]}},
            "/trials/grid/training.lr",
            (
                "unknown field 'lr' of training; known are: epochs, batch_size, learning_rate, "
                "momentum, weight_decay, gradient_clip, schedule, precision"
            ),
        ),
        (
            {"sample": {"training.momentum": {"uniform": [0.5, 1]}}},
            "/trials/sample/training.momentum/uniform/1",
            "1.0 is too large: it must be below 1",
        ),
        (
            {"sample": {"training.momentum": {"gaussian": [0.5, 1]}}},
            "/trials/sample/training.momentum/gaussian",
            "unknown field 'gaussian'; known here are: uniform, loguniform, randint, choice",
        ),
        (
            {"seeds": list(range(200)), "grid": {"training.epochs": [1, 2, 3, 4, 5, 6]}},
            "/trials",
            (
                "200 seeds x 6 points are 1,200 trials; the most are 1,000: take fewer values, "
                "samples or seeds, or submit several searches"
            ),
        ),
        (
            {"grid": {"space.cells": [3, 2]}},
            "/trials/grid/space.cells/1",
            "2 is too small: it must be at least 3",
        ),
    ],
)
def test_a_wrong_value_has_its_pointer_and_stores_nothing(
    api: Api, engine: Engine, trials: dict[str, Any], pointer: str, message: str
) -> None:
    answer = api.post("/v1/searches", json={"space": {"kind": "darts"}, "trials": trials})
    assert answer.status_code == 422
    assert {"pointer": pointer, "message": message} in answer.json()["errors"]
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Search)) == 0


def test_a_failed_point_is_run_again_alone(api: Api, worker: Worker, engine: Engine) -> None:
    search_id = worker.submit(trials={"seeds": [0], "grid": {RATE: [0.1, 0.2, 0.3]}})
    lease = worker.claim()
    with transaction(engine) as session:
        first, second, third = searches.trials(session, lease.search_id)
        recording.trial_failed(session, lease, first.id, reason=Reason.DIVERGED, message="No.")
        recording.trial_stopped(session, lease, third.id, genotype(), message="Weak.")
    worker.epoch(lease, 3, 1)
    worker.succeed(lease, 1)
    worker.finish(lease)
    path = f"/v1/searches/{search_id}"
    assert counts(api.get(path).json()) == (3, 2, 1, 0)
    ranked = api.get(f"{path}/architectures").json()["items"]
    assert [(item["trial"], item["status"]) for item in ranked] == [
        (1, "succeeded"),
        (2, "stopped"),
    ]
    assert ranked[0]["parameters"] == {RATE: 0.2}

    for _ in range(2):
        answer = api.post(f"/v1/trials/{first.id}/retry")
        assert answer.status_code == 200
        assert answer.json()["status"] == "queued"
        assert answer.json()["parameters"] == {RATE: 0.1}
    search = api.get(path).json()
    assert (search["status"], search["reason"]) == ("queued", "retried")
    assert (search["ended_at"], search["recommended"]) == (None, None)
    assert counts(search) == (3, 2, 0, 1)

    for trial, word in ((second, "succeeded"), (third, "stopped")):
        answer = api.post(f"/v1/trials/{trial.id}/retry")
        assert answer.status_code == 409
        assert word in answer.json()["detail"]
    api.post(f"{path}/cancel")
    assert counts(api.get(path).json()) == (3, 2, 1, 0)
    answer = api.post(f"/v1/trials/{first.id}/retry")
    assert answer.status_code == 409
    assert "submit the spec again" in answer.json()["detail"]
    assert api.post(f"/v1/trials/{search_id}/retry").status_code == 404


@pytest.mark.parametrize(
    "grid",
    [
        {"space.family": ["darts", "sharp"]},
        # The second leaves its family to its kind.
        {"space": [{"kind": "darts"}, {"kind": "sharp_darts"}]},
    ],
)
def test_the_family_that_a_point_varies_is_told(
    api: Api, worker: Worker, grid: dict[str, Any]
) -> None:
    worker.submit(trials={"seeds": [0], "grid": grid})
    lease = worker.claim()
    worker.succeed(lease, 0, "max_pool_3x3")
    worker.succeed(lease, 1)
    worker.finish(lease)
    (found,) = api.get(f"/v1/architectures/{genotype().hash}").json()["found_by"]
    assert found["family"] == "sharp"
    body = {"preset": "retrain-digits", "architecture": genotype().hash}
    trained = api.post("/v1/trainings?dry_run=true", json=body).json()
    assert trained["spec"]["network"]["family"] == "sharp"
