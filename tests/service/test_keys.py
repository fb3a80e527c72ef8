"""Who may ask for what: keys, roles, ownership, teams, owners."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from service import first_key
from service.first_key import NoKeyError
from store import keys
from store.errors import InvalidKeyError
from store.sessions import transaction
from store.states import Role
from tests.service.conftest import SPEC, Api, Worker, genotype

PROBLEM = "application/problem+json"
As = Callable[..., dict[str, str]]


@pytest.fixture
def key_of(engine: Engine) -> As:
    """The headers with a new key of an owner."""

    def key_of(owner: str, role: Role = Role.MEMBER) -> dict[str, str]:
        with transaction(engine) as session:
            secret = keys.create(session, owner, role).secret
        return {"Authorization": f"Bearer {secret}"}

    return key_of


def _no_key(api: Api) -> None:
    del api._client.headers["Authorization"]


def _everything_of(search: dict[str, Any]) -> list[str]:
    path, trial = f"/v1/searches/{search['id']}", f"/v1/trials/{search['trials'][0]['id']}"
    below = ("trials", "events", "architectures", "logs")
    of_trial = ("metrics", "alphas", "paths", "cuboid.svg")
    return [path, *(f"{path}/{each}" for each in below), trial,
            *(f"{trial}/{each}" for each in of_trial)]  # fmt: skip


def test_every_operation_that_is_not_about_the_service_itself_takes_a_key(api: Api) -> None:
    _no_key(api)
    document = api.get("/openapi.json").json()
    open_to_all = {"/", "/healthz", "/readyz", "/v1/presets"}
    num_closed = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            url = path.replace("{architecture_hash}", "0" * 64)
            url = url.replace("{owner}", "local").replace("{", "").replace("}", "")
            for name in (
                "search_id",
                "training_id",
                "trial_id",
                "key_id",
                "webhook_id",
                "delivery_id",
            ):
                url = url.replace(name, str(UUID(int=7)))
            answer = api.request(method.upper(), url, json={})
            if path in open_to_all:
                assert answer.status_code in (200, 503), path
                assert "security" not in operation
                continue
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
            assert answer.headers["content-type"] == PROBLEM
            assert answer.headers["www-authenticate"] == "Bearer"
            assert operation["security"] == [{"key": []}], path
            assert "401" in operation["responses"], path
            num_closed += 1
    assert num_closed > 25


@pytest.mark.parametrize(
    "header", ["dbk_x", "Basic dbk_x", "Bearer", "Bearer dbk_unknown", "Bearer \xff"]
)
def test_what_is_no_key_is_told_how_to_send_one(api: Api, header: str) -> None:
    answer = api.get("/v1/queue", headers={"Authorization": header.encode("latin-1")})
    assert (answer.status_code, answer.headers["content-type"]) == (401, PROBLEM)
    assert "keys create" in answer.json()["detail"]


def test_a_search_is_its_owners(api: Api, key_of: As, worker: Worker) -> None:
    ana, ben = key_of("ana"), key_of("ben")
    search = api.post("/v1/searches", json={**SPEC, "labels": {}}, headers=ana).json()
    assert search["owner"] == "ana"
    paths = _everything_of(search)
    for path in paths:
        assert api.get(path, headers=ben).status_code == 404, path
        assert api.get(path, headers=ana).status_code in (200, 409), path
        assert api.get(path).status_code in (200, 409), path
    live = {**ben, "Accept": "text/event-stream"}
    assert api.get(f"{paths[0]}/events", headers=live).status_code == 404
    assert api.post(f"{paths[0]}/cancel", headers=ben).status_code == 404
    assert api.post(f"/v1/trials/{search['trials'][0]['id']}/retry", headers=ben).status_code == 404
    assert api.get("/v1/searches", headers=ben).json()["items"] == []
    assert len(api.get("/v1/searches", headers=ana).json()["items"]) == 1
    assert len(api.get("/v1/searches?owner=ana").json()["items"]) == 1
    assert api.get("/v1/searches?owner=ben").json()["items"] == []
    assert api.get(paths[0]).json()["status"] == "queued"
    # The queue tells its length to all, and whose it is only to those who see them.
    worker.heartbeat()
    own = api.post("/v1/searches", json={**SPEC, "labels": {}}, headers=ben).json()
    queue = api.get("/v1/queue", headers=ben).json()
    assert [line["search_id"] for line in queue["waiting"]] == [own["id"]]
    assert queue["waiting"][0]["position"] == 2
    assert queue["counts"]["queued"] == 2
    assert len(api.get("/v1/queue").json()["waiting"]) == 2
    worker.claim()
    assert api.get("/v1/queue", headers=ben).json()["running"] == []
    assert len(api.get("/v1/queue", headers=ana).json()["running"]) == 1


def test_a_team_label_shares_a_search(api: Api, key_of: As) -> None:
    ana, ben, eve = key_of("ana"), key_of("ben"), key_of("eve", Role.VIEWER)
    shared = api.post("/v1/searches", json=SPEC, headers=ana).json()
    assert shared["labels"] == {"team": "vision"}
    for name in ("ben", "eve"):
        api.request("PATCH", f"/v1/owners/{name}", json={"teams": ["vision", "audio"]})
    for path in _everything_of(shared):
        assert api.get(path, headers=ben).status_code in (200, 409), path
    assert api.post(f"/v1/searches/{shared['id']}/cancel", headers=eve).status_code == 403
    assert api.post(f"/v1/searches/{shared['id']}/cancel", headers=ben).status_code == 200
    # Deleting again is no error for those either who were never its owner.
    for _ in range(2):
        assert api.request("DELETE", f"/v1/searches/{shared['id']}", headers=ben).status_code == 204

    other = f"/v1/searches/{api.post('/v1/searches', json=SPEC, headers=ana).json()['id']}"
    unshared = api.request("PATCH", other, json={"labels": {}}, headers=ben)
    assert (unshared.status_code, unshared.json()["labels"]) == (200, {})
    assert api.get(other, headers=ben).status_code == 404
    api.request("PATCH", other, json={"labels": {"team": "vision"}})
    assert api.get(other, headers=ben).status_code == 200
    api.request("PATCH", "/v1/owners/ben", json={"teams": []})
    assert api.get(other, headers=ben).status_code == 404


def test_a_viewer_looks_and_does_not_touch(api: Api, key_of: As) -> None:
    viewer = key_of("ana", Role.VIEWER)
    own = api.post("/v1/searches", json=SPEC, headers=key_of("ana")).json()
    assert api.get(f"/v1/searches/{own['id']}", headers=viewer).status_code == 200
    assert api.post("/v1/searches?dry_run=true", json=SPEC, headers=viewer).status_code == 200
    for path, body in (
        ("/v1/searches", SPEC),
        ("/v1/trainings", {"architecture": "DARTS_V2"}),
        (f"/v1/searches/{own['id']}/cancel", None),
        (f"/v1/trials/{own['trials'][0]['id']}/retry", None),
        ("/v1/keys", {"role": "viewer"}),
    ):
        answer = api.post(path, json=body, headers=viewer)
        assert (answer.status_code, answer.headers["content-type"]) == (403, PROBLEM), path
        assert "the role member, and yours is viewer" in answer.json()["detail"]


def test_a_dry_run_takes_a_key_that_lets_in(api: Api) -> None:
    unknown = {"Authorization": "Bearer dbk_unknown"}
    assert api.post("/v1/searches?dry_run=true", json=SPEC, headers=unknown).status_code == 401


def test_an_architecture_names_only_searches_that_one_sees(
    api: Api, key_of: As, worker: Worker
) -> None:
    ana, ben = key_of("ana"), key_of("ben")
    api.post("/v1/searches", json={**SPEC, "labels": {}}, headers=ana)
    worker.run_to_the_end()
    path = f"/v1/architectures/{genotype().hash}"
    assert len(api.get(path, headers=ana).json()["found_by"]) == 1
    assert api.get(path, headers=ben).json()["found_by"] == []
    assert api.get(f"{path}.json", headers=ben).status_code == 200


def test_a_key_is_shown_once_and_works_until_it_is_revoked(api: Api) -> None:
    answer = api.post("/v1/keys", json={"owner": "ana", "name": "notebook", "days": 30})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert (made["owner"], made["role"], made["name"]) == ("ana", "member", "notebook")
    assert made["expires_at"] > made["created_at"]
    ana = {"Authorization": f"Bearer {made['key']}"}
    me = api.get("/v1/me", headers=ana).json()
    assert (me["owner"], me["role"], me["key_id"]) == ("ana", "member", made["id"])
    listed = api.get("/v1/keys", headers=ana)
    assert [key["id"] for key in listed.json()["items"]] == [made["id"]]
    assert made["key"] not in listed.text
    assert made["key"] not in api.get(answer.headers["location"]).text
    revoked = api.post(f"/v1/keys/{made['id']}/revoke", headers=ana).json()
    assert revoked["revoked_at"] is not None
    refused = api.get("/v1/me", headers=ana)
    assert refused.status_code == 401
    assert "was revoked" in refused.json()["detail"]
    again = api.post(f"/v1/keys/{made['id']}/revoke").json()
    assert again["revoked_at"] == revoked["revoked_at"]


def test_members_make_and_see_keys_of_their_own_only(api: Api, key_of: As) -> None:
    ana, ben = key_of("ana"), key_of("ben")
    own = api.post("/v1/keys", json={"role": "viewer"}, headers=ana).json()
    assert own["owner"] == "ana"
    assert api.post("/v1/keys", json={"owner": "ben"}, headers=ana).status_code == 403
    assert api.post("/v1/keys", json={"role": "admin"}, headers=ana).status_code == 403
    assert api.get(f"/v1/keys/{own['id']}", headers=ben).status_code == 404
    assert api.post(f"/v1/keys/{own['id']}/revoke", headers=ben).status_code == 404
    assert len(api.get("/v1/keys", headers=ana).json()["items"]) == 2
    assert api.get("/v1/keys?owner=ana", headers=ben).json()["items"] == []
    assert len(api.get("/v1/keys").json()["items"]) >= 4


def test_a_members_key_takes_no_admin_out(api: Api, key_of: As) -> None:
    member = key_of("local")
    mine = api.get("/v1/me").json()["key_id"]
    refused = api.post(f"/v1/keys/{mine}/revoke", headers=member)
    assert (refused.status_code, "ask an admin" in refused.json()["detail"]) == (403, True)
    assert api.get("/v1/me").status_code == 200


def test_a_members_key_makes_none_that_outlives_it(api: Api) -> None:
    lent = api.post("/v1/keys", json={"owner": "ana", "days": 1}).json()
    holder = {"Authorization": f"Bearer {lent['key']}"}
    for wanted in ({}, {"days": 30}):
        made = api.post("/v1/keys", json=wanted, headers=holder).json()
        assert made["expires_at"] == lent["expires_at"]
    shorter = api.post("/v1/keys", json={"days": 0.5}, headers=holder).json()
    assert shorter["expires_at"] < lent["expires_at"]
    assert api.post("/v1/keys", json={"owner": "ana"}).json()["expires_at"] is None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "root"}, "/role"),
        ({"owner": "a b"}, "/owner"),
        ({"days": 0}, "/days"),
        ({"name": "a\nb"}, "/name"),
        ({"secret": "mine"}, "/secret"),
        ([], ""),
    ],
)
def test_a_bad_key_request_says_where(api: Api, body: object, pointer: str) -> None:
    answer = api.post("/v1/keys", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
    assert answer.json()["type"] == "urn:dartboard:problem:invalid-body"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_an_admin_sets_weights_quotas_and_teams(api: Api, key_of: As) -> None:
    ana = key_of("ana")
    before = api.get("/v1/owners/ana", headers=ana).json()
    assert (before["weight"], before["max_running"], before["teams"]) == (1.0, None, [])
    changes = {"weight": 2.5, "max_running": 3, "max_gpus": 0.5, "teams": ["vision"]}
    assert api.request("PATCH", "/v1/owners/ana", json=changes, headers=ana).status_code == 403
    changed = api.request("PATCH", "/v1/owners/ana", json=changes).json()
    assert {name: changed[name] for name in changes} == changes
    part = api.request("PATCH", "/v1/owners/ana", json={"max_running": None}).json()
    assert (part["max_running"], part["weight"]) == (None, 2.5)
    assert api.request("PATCH", "/v1/owners/nobody", json=changes).status_code == 404
    assert api.request("PATCH", "/v1/owners/ana", json={"weight": 0}).status_code == 422
    assert [each["name"] for each in api.get("/v1/owners", headers=ana).json()["items"]] == ["ana"]
    assert {"ana", "local"} <= {each["name"] for each in api.get("/v1/owners").json()["items"]}
    assert api.get("/v1/owners/local", headers=ana).status_code == 404


def test_the_first_key_is_made_once_and_for_its_user_only(engine: Engine, tmp_path: Path) -> None:
    with transaction(engine) as session:
        said = first_key.ensure(session, "127.0.0.1", tmp_path)
    file = tmp_path / "api-key"
    assert said is not None
    assert str(file) in said
    secret = file.read_text().strip()
    assert secret not in said
    assert file.stat().st_mode & 0o777 == 0o600
    with transaction(engine) as session:
        who = keys.authenticate(session, keys.digest(secret))
        assert (who.owner, who.role) == ("local", Role.ADMIN)
        assert first_key.ensure(session, "localhost", tmp_path) is None
    assert file.read_text().strip() == secret


def test_a_lost_first_key_is_replaced_and_of_no_more_use(engine: Engine, tmp_path: Path) -> None:
    with transaction(engine) as session:
        first_key.ensure(session, "::1", tmp_path)
    file = tmp_path / "api-key"
    lost = file.read_text().strip()
    file.unlink()
    with transaction(engine) as session:
        first_key.ensure(session, "::1", tmp_path)
        first_key.ensure(session, "::1", tmp_path / "another home")
    with transaction(engine) as session:
        keys.authenticate(session, keys.digest(file.read_text().strip()))
        with pytest.raises(InvalidKeyError):
            keys.authenticate(session, keys.digest(lost))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_beyond_the_loopback_it_takes_a_key_that_somebody_made(
    engine: Engine, tmp_path: Path, host: str
) -> None:
    with transaction(engine) as session:
        assert first_key.ensure(session, host, tmp_path) is None
        for key in keys.page(session):
            keys.revoke(session, key.id)
        with pytest.raises(NoKeyError, match=r"store\.keys create"):
            first_key.ensure(session, host, tmp_path)
    assert not (tmp_path / "api-key").exists()
