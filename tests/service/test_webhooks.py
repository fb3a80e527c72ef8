"""`/v1/webhooks`: who makes them, who sees them, and what their log says."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select

from store import webhooks
from store.models import IdempotencyKey, Webhook
from store.sessions import transaction
from store.states import Role
from store.webhooks import Wanted
from tests.service.conftest import SPEC, Api
from tests.service.test_keys import key_of as key_of

PROBLEM = "application/problem+json"
PATH = "/v1/webhooks"
URL = "https://8.8.8.8/hook"
As = Callable[..., dict[str, str]]


def make(api: Api, who: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    answer = api.post(PATH, json={"url": URL, **fields}, headers=who or {})
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_the_secret_is_shown_once(api: Api, engine: Engine) -> None:
    answer = api.post(PATH, json={"url": URL, "name": "room", "kinds": ["trial.*", "trial.*"]})
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    secret = made.pop("secret")
    assert secret.startswith("dbw_")
    assert len(secret) == 47
    assert (made["owner"], made["kinds"], made["scope"]) == ("local", ["trial.*"], "visible")
    assert api.get(answer.headers["location"]).json() == made
    assert api.get(PATH).json() == {"items": [made]}
    with transaction(engine) as session:
        assert session.scalars(select(Webhook.secret)).one() == secret
    assert make(api)["kinds"] == ["search.*", "training.*"]


def test_a_create_sent_again_has_the_secret_and_keeps_it_in_one_place(
    api: Api, engine: Engine
) -> None:
    name = {"Idempotency-Key": "room"}
    first = api.post(PATH, json={"url": URL}, headers=name)
    again = api.post(PATH, json={"url": URL}, headers=name)
    assert (again.status_code, again.content) == (201, first.content)
    assert api.post(PATH, json={"url": URL, "name": "x"}, headers=name).status_code == 409
    with transaction(engine) as session:
        assert first.json()["secret"] not in session.scalars(select(IdempotencyKey.answer)).one()
    api.request("DELETE", first.headers["location"])
    gone = api.post(PATH, json={"url": URL}, headers=name)
    assert (gone.status_code, gone.headers["content-type"]) == (404, PROBLEM)


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({}, "/url", "url is required"),
        ({"url": "example.com"}, "/url", "must be an address like https://"),
        ({"url": "ftp://example.com"}, "/url", "must be an address like https://"),
        ({"url": "https://ana:secret@example.com"}, "/url", "user name"),
        ({"url": "https://example.com/\n"}, "/url", ""),
        ({"url": "http://127.0.0.1:8000/"}, "/url", "127.0.0.1 is no public address"),
        ({"url": "http://localhost/"}, "/url", "localhost is at "),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "/url", "no public address"),
        ({"url": URL, "kinds": []}, "/kinds", "at least 1"),
        ({"url": URL, "kinds": ["serach.*"]}, "/kinds/0", "did you mean search.*?"),
        ({"url": URL, "kinds": ["search"]}, "/kinds/0", "did you mean search.*?"),
        ({"url": URL, "kinds": ["search.suceeded"]}, "/kinds/0", "did you mean search.succeeded?"),
        ({"url": URL, "kinds": ["*", "trial.nope"]}, "/kinds/1", "there is no event 'trial.nope'"),
        ({"url": URL, "kinds": ["Trial Epoch"]}, "/kinds/0", "did you mean trial.epoch?"),
        ({"url": URL, "kinds": ["%"]}, "/kinds/0", "docs/webhooks.md lists them all"),
        ({"url": URL, "scope": "own"}, "/scope", "'own'"),
        ({"url": URL, "secret": "mine"}, "/secret", "unknown field"),
    ],
)
def test_what_is_no_webhook_says_why(
    offline: Api, body: dict[str, Any], pointer: str, said: str
) -> None:
    answer = offline.post(PATH, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
    assert answer.json()["type"] == "urn:dartboard:problem:invalid-body"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert said in answer.json()["detail"]
    assert "ana:secret" not in answer.json()["detail"]


def test_private_addresses_are_taken_where_a_setting_allows_them(database_url: str) -> None:
    with Api(database_url, webhooks_allow_private=True) as api:
        assert make(api, url="http://127.0.0.1:9/")["url"] == "http://127.0.0.1:9/"


def test_a_webhook_is_its_owners(api: Api, key_of: As) -> None:
    ana, ben, viewer = key_of("ana"), key_of("ben"), key_of("ana", Role.VIEWER)
    made = make(api, ana)
    path = f"{PATH}/{made['id']}"
    ping = api.post(f"{path}/test", headers=ana).json()
    of_delivery = f"{path}/deliveries/{ping['id']}"
    for method, url in (
        *(("GET", path), ("PATCH", path), ("POST", f"{path}/test"), ("DELETE", path)),
        *(("GET", f"{path}/deliveries"), ("GET", of_delivery)),
        ("POST", f"{of_delivery}/redeliver"),
    ):
        answer = api.request(method, url, json={}, headers=ben)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM), url
        if method != "GET":
            assert api.request(method, url, json={}, headers=viewer).status_code == 403, url
        else:
            assert api.get(url, headers=viewer).status_code == 200
            assert api.get(url).status_code == 200
    assert api.get(PATH, headers=ben).json() == {"items": []}
    assert len(api.get(PATH, headers=viewer).json()["items"]) == 1
    assert len(api.get(f"{PATH}?owner=ana").json()["items"]) == 1
    assert api.get(f"{PATH}?owner=ana", headers=ben).json() == {"items": []}
    assert api.post(PATH, json={"url": URL}, headers=viewer).status_code == 403
    other = make(api, ben)
    elsewhere = f"{PATH}/{other['id']}/deliveries/{ping['id']}"
    assert api.get(elsewhere, headers=ben).status_code == 404
    assert api.request("DELETE", path, headers=ana).status_code == 204
    assert api.get(path, headers=ana).status_code == 404


def test_only_admins_hear_of_everybodys(api: Api, key_of: As) -> None:
    body = {"url": URL, "scope": "all"}
    assert api.post(PATH, json=body, headers=key_of("ana")).status_code == 403
    made = api.post(PATH, json=body)
    assert made.status_code == 201
    # Its log tells of everybody's searches, and is not for all keys of its owner.
    for role in (Role.MEMBER, Role.VIEWER):
        weaker = key_of("local", role)
        assert api.get(made.headers["location"], headers=weaker).status_code == 404
        log = f"{made.headers['location']}/deliveries"
        assert api.get(log, headers=weaker).status_code == 404
        assert api.get(PATH, headers=weaker).json() == {"items": []}
    assert len(api.get(PATH).json()["items"]) == 1


def test_there_is_a_most(api: Api, engine: Engine) -> None:
    with transaction(engine) as session:
        for _ in range(webhooks.MOST_PER_OWNER):
            webhooks.create(session, "local", Wanted(URL, ["*"]))
    answer = api.post(PATH, json={"url": URL})
    assert (answer.status_code, "50 webhooks" in answer.json()["detail"]) == (409, True)


def test_a_disabled_one_is_told_nothing_until_it_is_enabled(api: Api) -> None:
    path = f"{PATH}/{make(api, kinds=['search.*'])['id']}"
    api.submit()
    for _ in range(2):
        changed = api.request("PATCH", path, json={"disabled": True, "name": "off"}).json()
        assert (changed["disabled_why"], changed["name"]) == ("Its owner disabled it.", "off")
    api.submit()
    (given_up,) = api.get(f"{path}/deliveries").json()["items"]
    assert (given_up["status"], given_up["error"]) == ("failed", "Its webhook was disabled.")
    for verb in ("test", f"deliveries/{given_up['id']}/redeliver"):
        answer = api.post(f"{path}/{verb}")
        assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
        assert "enable it first" in answer.json()["detail"]
    enabled = api.request("PATCH", path, json={"disabled": False, "kinds": ["*"]}).json()
    assert (enabled["disabled_at"], enabled["kinds"]) == (None, ["*"])
    api.submit()
    assert len(api.get(f"{path}/deliveries").json()["items"]) == 2
    again = api.post(f"{path}/deliveries/{given_up['id']}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    assert api.request("PATCH", path, json={"url": URL}).status_code == 422


def test_the_log_pages(database_url: str) -> None:
    # Nobody sends here: what waits stays.
    with Api(database_url, webhooks_senders=0) as api:
        path = f"{PATH}/{make(api)['id']}/deliveries"
        searches = [api.submit()["id"] for _ in range(5)]
        seen, cursor = [], ""
        while cursor is not None:
            page = api.get(f"{path}?limit=2" + (f"&cursor={cursor}" if cursor else "")).json()
            assert len(page["items"]) <= 2
            seen += [item["search_id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert seen == searches[::-1]
        assert api.get(f"{path}?cursor=zzz").status_code == 422
        assert api.get(f"{path}?status=delivered").json()["items"] == []
        (first, *_) = api.get(f"{path}?status=pending").json()["items"]
        whole = api.get(f"{path}/{first['id']}").json()
        assert {name: whole[name] for name in first} == first
        event = api.get(f"/v1/searches/{searches[-1]}/events").json()["items"][0]
        assert {name: whole["payload"][name] for name in event} == event
        assert whole["payload"]["search"]["name"] == SPEC["name"]
