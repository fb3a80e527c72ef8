"""Shares of GPUs and custom resources over HTTP."""

from typing import Any

import pytest
from sqlalchemy import Engine

from service.queue.schemas import RunningSearch
from store import leases, queue
from store.leases import Capacity, Node
from store.sessions import transaction
from tests.service.conftest import MINUTE, SPEC, Api

RESOURCES = {"cpus": 1, "gpus": 0.1, "custom": {"a100": 0.5}}
SEEDS = {"seeds": [0, 1, 2]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/searches", SPEC | {"trials": SEEDS}),
        (
            "/v1/trainings",
            {"preset": "retrain-digits", "architecture": "DARTS_V2", "trials": SEEDS},
        ),
    ],
)
def test_a_dry_run_sums_shares_exactly(api: Api, path: str, body: dict[str, Any]) -> None:
    answer = api.post(f"{path}?dry_run=true", json=body | {"resources": RESOURCES})
    assert answer.status_code == 200, answer.text
    dry = answer.json()
    assert (dry["cpus"], dry["gpus"], dry["custom"]) == (3, 0.3, {"a100": 1.5})
    assert dry["spec"]["resources"] == RESOURCES


@pytest.mark.parametrize(
    ("resources", "pointer", "says"),
    [
        ({"gpus": 1.5}, "/resources/gpus", "below 1 any share, above 1 whole GPUs"),
        ({"custom": {"GPU": 1}}, "/resources/custom/GPU", "the field gpus"),
        ({"custom": {"a100": -1}}, "/resources/custom/a100", "it must be above 0"),
    ],
)
def test_what_is_refused_has_a_pointer(
    offline: Api, resources: dict[str, Any], pointer: str, says: str
) -> None:
    answer = offline.post("/v1/searches", json=SPEC | {"resources": resources})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert says in error["message"]


def test_the_queue_tells_what_is_missing_and_what_is_taken(api: Api, engine: Engine) -> None:
    nodes = Node(4, 1, custom={"a100": 2}), Node(4)
    with transaction(engine) as session:
        queue.heartbeat(session, "box:1", host="box", pid=1, capacity=Capacity(nodes))
    api.submit(trials=SEEDS | {"stack": 2}, resources=RESOURCES)
    with transaction(engine) as session:
        assert leases.claim(session, Capacity(nodes), holder="box:1", duration=MINUTE) is not None
    submitted = api.submit(resources={"custom": {"v100": 1}})
    waiting = api.get(f"/v1/searches/{submitted['id']}").json()
    assert waiting["waiting"]["why"] == "no node has 1 v100, which each of its trials needs"
    answer = api.get("/v1/queue").json()
    (held,) = answer["running"]
    running = RunningSearch.model_validate(held, strict=False)
    # Two of the three seeds are stacked.
    assert (running.cpus, running.gpus, running.custom) == (2, 0.2, {"a100": 1.0})
    cluster = answer["cluster"]
    assert cluster["custom"] == {"a100": 2}
    assert (cluster["reserved_gpus"], cluster["reserved_custom"]) == (0.2, {"a100": 1})
    assert [node["custom"] for node in cluster["nodes"]] == [{"a100": 2}, {}]
