"""`/v1/searches:batch`: all or none, in order."""

from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from service.spec_body import LARGEST_BATCH
from store.models import Search
from store.sessions import transaction
from tests.service.conftest import SPEC, Api, Worker

PATH = "/v1/searches:batch"
PROBLEM = "application/problem+json"


def specs(count: int, **changes: Any) -> dict[str, Any]:
    return {"searches": [{**SPEC, "name": f"number {n}", **changes} for n in range(count)]}


def count(engine: Engine) -> int:
    with transaction(engine) as session:
        return session.scalars(select(func.count()).select_from(Search)).one()


def test_a_hundred_wait_in_their_order(api: Api, worker: Worker) -> None:
    worker.heartbeat()
    api.submit()
    answer = api.post(PATH, json=specs(100))
    assert answer.status_code == 201, answer.text
    assert "location" not in answer.headers
    items = answer.json()["items"]
    assert [item["name"] for item in items] == [f"number {n}" for n in range(100)]
    now = [api.get(f"/v1/searches/{item['id']}").json() for item in items]
    assert [item["waiting"]["position"] for item in now] == list(range(2, 102))
    assert [{**item, "waiting": None} for item in now] == items
    assert len(items[0]["trials"]) == 2
    # They are run in that order too.
    worker.claim()
    assert str(worker.claim().search_id) == items[0]["id"]


def test_one_wrong_spec_refuses_all(api: Api, engine: Engine) -> None:
    body = specs(5)
    body["searches"][3]["space"] = {"kind": "darts", "channels": 0}
    body["searches"][4]["trainings"] = {}
    for query in ("", "?dry_run=true"):
        answer = api.post(PATH + query, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
        problem = answer.json()
        assert problem["type"] == "urn:dartboard:problem:invalid-spec"
        assert [error["pointer"] for error in problem["errors"]] == [
            "/searches/3/space/channels",
            "/searches/4/trainings",
        ]
    assert count(engine) == 0


def test_what_fails_on_the_way_leaves_none(api: Api, engine: Engine) -> None:
    with engine.begin() as connection:
        # The third row is refused by the database itself.
        connection.exec_driver_sql("CREATE UNIQUE INDEX ON searches (name)")
    body = specs(3)
    body["searches"][2]["name"] = "number 0"
    assert api.post(PATH, json=body).status_code == 500
    assert count(engine) == 0


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        (specs(101), "/searches", "it has 101 items: it must have at most 100 items"),
        ({"searches": []}, "/searches", "it is empty"),
        ({"searches": SPEC}, "/searches", "an object"),
        ({"searches": [SPEC, 7]}, "/searches/1", "7"),
        ({"specs": [SPEC]}, "/searches", "searches is required"),
        ({"searches": [SPEC], "priority": 1}, "/priority", "unknown field"),
        ([SPEC], "", "a list"),
        (
            specs(11, trials={"seeds": [0], "num_samples": 1000, "sample": {
                "training.learning_rate": {"loguniform": [0.01, 0.1]}}}),
            "/searches",
            "11,000 trials in all; the most at once are 10,000",
        ),
    ],
)  # fmt: skip
def test_what_is_no_batch_says_why(offline: Api, body: Any, pointer: str, said: str) -> None:
    answer = offline.post(PATH, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert said in answer.json()["detail"]


def test_a_dry_run_tells_of_each_and_stores_none(api: Api, engine: Engine) -> None:
    body = specs(3)
    items = api.post(f"{PATH}?dry_run=true", json=body).json()["items"]
    alone = [api.post("/v1/searches?dry_run=true", json=spec).json() for spec in body["searches"]]
    assert items == alone
    assert count(engine) == 0


def test_a_batch_may_be_larger_than_a_spec(api: Api) -> None:
    spec = b'{"preset": "digits-quick"}'
    body = b'{"searches": [%s, %s]}' % (spec, spec + b" " * 2_000_000)
    headers = {"Content-Type": "application/json"}
    assert api.post(PATH, content=body, headers=headers).status_code == 201
    assert api.post("/v1/searches", content=body, headers=headers).status_code == 413
    too_large = api.post(PATH, content=b" " * (LARGEST_BATCH + 1), headers=headers)
    assert too_large.status_code == 413
    assert f"{LARGEST_BATCH:,}" in too_large.json()["detail"]
