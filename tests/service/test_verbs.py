"""The verbs over HTTP: what they answer, for searches and trainings alike."""

from typing import Any

import pytest

from tests.service.conftest import SPEC, Api, Worker

PROBLEM = "application/problem+json"
TRAINING = {"architecture": "DARTS_V2", "preset": "retrain-digits"}


@pytest.fixture(params=["searches", "trainings"])
def path(request: pytest.FixtureRequest, api: Api) -> str:
    """A queued job."""
    body: dict[str, Any] = SPEC if request.param == "searches" else TRAINING
    answer = api.post(f"/v1/{request.param}", json=body)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def test_what_waits_is_paused_resumed_cancelled_and_retried(api: Api, path: str) -> None:
    def say(verb: str) -> tuple[str, str | None]:
        answers = [api.post(f"{path}/{verb}") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        first, second = (answer.json() for answer in answers)
        assert first == second == api.get(path).json()
        return first["status"], first["reason"]

    assert say("pause") == ("paused", "paused_by_user")
    assert say("retry") == ("paused", "paused_by_user")
    assert say("resume") == ("queued", "resumed")
    assert say("cancel") == ("cancelled", "cancelled_by_user")
    for verb in ("pause", "resume"):
        refused = api.post(f"{path}/{verb}")
        assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)
        assert "cancelled" in refused.json()["detail"]
    assert say("retry") == ("queued", "retried")
    assert api.get(path).json()["cancel_requested_at"] is None


def test_what_has_ended_is_deleted(api: Api, path: str) -> None:
    refused = api.request("DELETE", path)
    assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)
    assert "cannot become deleted" in refused.json()["detail"]
    trial = api.get(path).json()["trials"][0]["id"]
    api.post(f"{path}/cancel")
    for _ in range(2):
        gone = api.request("DELETE", path)
        assert (gone.status_code, gone.content) == (204, b"")
    for lost in (path, f"{path}/events", f"/v1/trials/{trial}"):
        assert api.get(lost).status_code == 404
    assert api.post(f"{path}/retry").status_code == 404


def test_name_labels_and_priority_are_changed(api: Api, path: str) -> None:
    spec = api.get(path).json()["spec"]
    changes = {"name": "new", "labels": {"team": "audio"}, "priority": 7}
    for _ in range(2):
        changed = api.request("PATCH", path, json=changes).json()
        assert {name: changed[name] for name in changes} == changes
    assert changed["spec"] == spec
    kept = api.request("PATCH", path, json={"priority": -1}).json()
    assert (kept["name"], kept["priority"]) == ("new", -1)
    kinds = [event["kind"].partition(".")[2] for event in api.get(f"{path}/events").json()["items"]]
    assert kinds == ["queued", "changed", "changed"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"priority": 101}, "/priority"),
        ({"labels": {"a b": "c"}}, "/labels/a b"),
        ({"name": "a\x00"}, "/name"),
        ({"status": "running"}, "/status"),
    ],
)
def test_a_bad_change_says_where(api: Api, path: str, body: object, pointer: str) -> None:
    refused = api.request("PATCH", path, json=body)
    assert (refused.status_code, refused.headers["content-type"]) == (422, PROBLEM), refused.text
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]


def test_what_runs_says_that_it_is_about_to_pause(api: Api, worker: Worker) -> None:
    worker.heartbeat()
    search = api.submit()
    lease = worker.claim()
    path = f"/v1/searches/{search['id']}"
    pausing = api.post(f"{path}/pause").json()
    assert (pausing["status"], pausing["pause_requested_at"] is None) == ("running", False)
    assert api.post(f"{path}/resume").json()["pause_requested_at"] is None
    worker.run_down(lease)
    refused = api.post(f"{path}/retry")
    assert refused.status_code == 409
    assert "Every trial" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [({"time_limit": 0}, "/time_limit"), ({"preemptible": "yes"}, "/preemptible")],
)
def test_limits_of_a_spec_are_checked(api: Api, changes: dict[str, Any], pointer: str) -> None:
    refused = api.post("/v1/searches", json={**SPEC, **changes})
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    accepted = api.submit(time_limit=3600, preemptible=True)
    assert (accepted["spec"]["time_limit"], accepted["spec"]["preemptible"]) == (3600.0, True)
