"""The application as a whole: what it imports, what it documents, how it refuses."""

import json
import re
import subprocess
import sys
from http import HTTPStatus
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from service.app import create_app
from service.settings import ServiceSettings
from tests.service.conftest import SPEC, Api, Worker

PROBLEM = "application/problem+json"
NOBODY = "01979d3c-6f5e-7a31-9c53-5f2f0c1d8e4b"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(ServiceSettings()).openapi()


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def test_the_service_starts_without_torch_and_ray() -> None:
    code = (
        "import sys, service.app, service.__main__; "
        "sys.exit(str([m for m in sys.modules if m.split('.')[0] in ('torch', 'ray')] or ''))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == ""


def test_every_operation_has_examples_that_fit_their_schemas(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    num_examples = 0
    for name, operation in _operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for body in [*bodies, *operation["responses"].values()]:
            for media_type, content in body.get("content", {}).items():
                examples = [each["value"] for each in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                assert examples, f"{name}: no example of {media_type}"
                schema = {**content["schema"], "components": document["components"]}
                for example in examples:
                    jsonschema.validate(example, schema)
                    num_examples += 1
    assert num_examples > 50


def test_the_document_names_the_spec_and_the_problems(document: dict[str, Any]) -> None:
    submit = document["paths"]["/v1/searches"]["post"]
    schema = submit["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/SearchSpec"}
    assert {"200", "201", "400", "413", "415", "422", "503"} <= submit["responses"].keys()
    schemas = document["components"]["schemas"]
    assert schemas["SearchSpec"]["properties"]["priority"]["description"]
    assert schemas["SearchAnswer"]["properties"]["spec"] == {
        "$ref": "#/components/schemas/SearchSpec"
    }
    text_of_it = json.dumps(document)
    assert "HTTPValidationError" not in text_of_it
    for reference in set(_references(document)):
        assert reference.removeprefix("#/components/schemas/") in schemas


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for member in value.values() for found in _references(member)]
    if isinstance(value, list):
        return [found for member in value for found in _references(member)]
    return []


def test_the_document_is_served(api: Api) -> None:
    assert api.get("/openapi.json").json()["info"]["title"] == "Dartboard"


def test_the_reference_page_needs_nothing_from_elsewhere(
    offline: Api, document: dict[str, Any]
) -> None:
    answer = offline.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert f"<code>{path}</code>" in answer.text
    assert "<script" not in answer.text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", answer.text)


def test_the_root_says_where_to_go(api: Api) -> None:
    root = api.get("/").json()
    assert root["name"] == "Dartboard"
    for path in root["links"].values():
        assert api.get(path).status_code in (200, 503), path


def test_an_unknown_path_is_a_problem(api: Api) -> None:
    answer = api.get("/v1/nothing")
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    assert answer.json()["type"] == "urn:dartboard:problem:not-found"
    assert "/v1/nothing" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/queue", "/v1/searches", "/v1/searches/7/trials", "/healthz"])
def test_a_slash_too_many_is_told_the_path_without_it(offline: Api, path: str) -> None:
    for method in ("GET", "POST"):
        answer = offline.request(method, f"{path}/")
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
        assert answer.json()["detail"].endswith(f"there is {path}.")
    assert "openapi" in offline.get("/v1/nothing/").json()["detail"]


def test_json_ends_its_line(api: Api, worker: Worker) -> None:
    path = f"/v1/searches/{worker.submit()}"
    answers = [api.get(path), api.get("/v1/queue"), api.get("/v1/nothing"), api.get("/healthz")]
    answers.append(api.get("/openapi.json"))
    answers.append(api.post("/v1/searches?dry_run=true", json=SPEC))
    for answer in answers:
        assert answer.text.count("\n") == 1
        assert answer.text.endswith("}\n")
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_format_is_asked_for_by_a_header(offline: Api) -> None:
    for path, media_type in (("trials/7/metrics", "text/csv"), ("searches/7/events", "text/event")):
        answer = offline.get(f"/v1/{path}?format=csv")
        assert answer.status_code == 422
        assert f"`Accept: {media_type}" in answer.json()["detail"]
    assert "Accept" not in offline.get("/v1/queue?format=csv").json()["detail"]


def test_a_wrong_method_names_the_right_ones(api: Api) -> None:
    answer = api.request("DELETE", "/v1/searches")
    assert (answer.status_code, answer.headers["content-type"]) == (405, PROBLEM)
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v1/searches/not-a-uuid", "search_id"),
        ("/v1/trials/7", "trial_id"),
        ("/v1/architectures/abc", "architecture_hash"),
        ("/v1/architectures/abc.svg", "architecture_hash"),
        (f"/v1/architectures/{'A' * 64}", "architecture_hash"),
        ("/v1/searches?limit=0", "limit"),
        ("/v1/searches?limit=201", "limit"),
        ("/v1/searches?limit=many", "limit"),
        ("/v1/searches?status=done", "status"),
        ("/v1/searches?space=dart", "space"),
        ("/v1/searches?name=%00", "name"),
        ("/v1/searches?label=team", "label"),
        ("/v1/searches?label=a:%00", "label"),
        ("/v1/searches?created_after=2026-01-31T12:00:00", "created_after"),
        ("/v1/searches?created_before=yesterday", "created_before"),
        ("/v1/searches?sort=name", "sort"),
        ("/v1/searches?statuss=queued", "statuss"),
        ("/v1/trainings/not-a-uuid", "training_id"),
        ("/v1/trainings?space=darts", "space"),
        ("/v1/trainings?label=team", "label"),
        (f"/v1/searches/{NOBODY}/logs/passwd", "name"),
        (f"/v1/searches/{NOBODY}/logs/%2e%2e", "name"),
        (f"/v1/searches/{NOBODY}/logs/runner-attempt-1.log%0A", "name"),
        (f"/v1/trainings/{NOBODY}/logs/runner-attempt-1.log?tail=0", "tail"),
        (f"/v1/searches/{NOBODY}/logs?tail=1", "tail"),
        ("/v1/queue?verbose=1", "verbose"),
        ("/v1/presets?a=1", "'a'"),
        ("/healthz?a=1", "'a'"),
    ],
)
def test_a_malformed_parameter_is_named(offline: Api, path: str, named: str) -> None:
    answer = offline.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
    assert answer.json()["type"] == "urn:dartboard:problem:invalid-parameter"
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("cursor", ["zzz", "%C3%A9%00", "AAAA"])
def test_a_foreign_cursor_is_refused(api: Api, cursor: str) -> None:
    answer = api.get(f"/v1/searches?cursor={cursor}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
    assert "next_cursor" in answer.json()["detail"]


_LOST = [
    ("GET", f"/v1/searches/{NOBODY}"),
    ("POST", f"/v1/searches/{NOBODY}/cancel"),
    ("GET", f"/v1/searches/{NOBODY}/trials"),
    ("GET", f"/v1/searches/{NOBODY}/events"),
    ("GET", f"/v1/searches/{NOBODY}/architectures"),
    ("GET", f"/v1/searches/{NOBODY}/logs"),
    ("GET", f"/v1/searches/{NOBODY}/logs/runner-attempt-1.log"),
    ("GET", f"/v1/trainings/{NOBODY}/logs"),
    ("GET", f"/v1/trainings/{NOBODY}/logs/trial-0-attempt-1.log"),
    ("GET", f"/v1/trainings/{NOBODY}"),
    ("POST", f"/v1/trainings/{NOBODY}/cancel"),
    ("GET", f"/v1/trainings/{NOBODY}/trials"),
    ("GET", f"/v1/trainings/{NOBODY}/events"),
    ("GET", f"/v1/trials/{NOBODY}"),
    ("GET", f"/v1/trials/{NOBODY}/metrics"),
    ("GET", f"/v1/architectures/{'0' * 64}"),
    ("GET", f"/v1/architectures/{'0' * 64}.json"),
    ("GET", f"/v1/architectures/{'0' * 64}.txt"),
    ("GET", f"/v1/architectures/{'0' * 64}.svg"),
    ("GET", f"/v1/architectures/{'0' * 64}.dot"),
]


def test_what_is_not_there_is_not_found(api: Api) -> None:
    for method, path in _LOST:
        answer = api.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM), path
        assert "GET /v1/" in answer.json()["detail"]


def test_a_stream_of_what_is_not_there_is_not_found(api: Api) -> None:
    answer = api.get(f"/v1/searches/{NOBODY}/events", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)


def test_an_unforeseen_error_is_a_problem_without_internals(api: Api, engine: Engine) -> None:
    search = api.submit()
    with engine.begin() as connection:
        connection.execute(text("UPDATE searches SET labels = '[1]'"))
    answer = api.get(f"/v1/searches/{search['id']}")
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert answer.json()["type"] == "urn:dartboard:problem:internal-error"
    assert "labels" not in answer.text


def test_a_database_without_tables_is_a_problem_that_says_what_to_do(
    api: Api, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE events, metrics, trials, searches CASCADE"))
    answer = api.get("/v1/searches")
    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
    assert "python -m migrations" in answer.json()["detail"]


def test_a_database_that_is_away_is_a_problem_that_says_what_to_do(offline: Api) -> None:
    answer = offline.get("/v1/searches")
    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
    assert int(answer.headers["retry-after"]) > 0
    assert "PostgreSQL" in answer.json()["detail"]
    ready = offline.get("/readyz")
    assert ready.status_code == 503
    assert [check["ok"] for check in ready.json()["checks"].values()] == [False] * 3
    assert offline.get("/healthz").json() == {"status": "ok"}


def test_it_is_ready_only_with_a_dispatcher(api: Api, worker: Worker) -> None:
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    checks = answer.json()["checks"]
    assert checks["database"]["ok"]
    assert checks["schema"]["ok"]
    assert not checks["dispatcher"]["ok"]
    assert "workers.dispatcher" in checks["dispatcher"]["detail"]
    worker.heartbeat()
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


@pytest.mark.parametrize(
    "statement", ["DROP TABLE alembic_version", "UPDATE alembic_version SET version_num = '0000'"]
)
def test_it_is_not_ready_with_another_schema(api: Api, engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))
    answer = api.get("/readyz")
    assert answer.status_code == 503
    assert "python -m migrations" in answer.json()["checks"]["schema"]["detail"]


def test_head_is_get_without_the_body(api: Api) -> None:
    head, get = api.request("HEAD", "/v1/presets"), api.get("/v1/presets")
    assert head.status_code == get.status_code == HTTPStatus.OK
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


def test_head_of_a_live_stream_ends(api: Api) -> None:
    search = api.submit()
    answer = api.request(
        "HEAD", f"/v1/searches/{search['id']}/events", headers={"Accept": "text/event-stream"}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_presets_are_complete_specs(api: Api) -> None:
    items = api.get("/v1/presets").json()["items"]
    assert "digits-quick" in [item["name"] for item in items]
    assert "retrain-digits" in [item["name"] for item in items]
    for item in items:
        if item["kind"] == "search":
            path, more = "/v1/searches", {}
        else:
            path, more = "/v1/trainings", {"architecture": "DARTS_V2"}
        dry = api.post(f"{path}?dry_run=true", json={"preset": item["name"], **more})
        assert dry.json()["spec"] == {**item["spec"], **more}


def test_an_application_can_be_made_twice() -> None:
    first, second = (create_app(ServiceSettings()) for _ in range(2))
    assert isinstance(first, FastAPI)
    assert first.state is not second.state
