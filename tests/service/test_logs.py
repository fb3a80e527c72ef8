"""`/v1/searches/{id}/logs`, from a folder and from a real S3-compatible server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from search_core.storage import Storage
from store import artifacts, keys, logs
from store.sessions import transaction
from store.states import Role
from tests.s3 import SECRET_KEY, S3Server
from tests.service.conftest import Api, Worker
from tests.service.test_trainings import SPEC as TRAINING

PROBLEM = "application/problem+json"


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage of this test's own; of S3 with credentials in the URL."""
    if request.param == "folder":
        return str(tmp_path / "storage")
    server: S3Server = request.getfixturevalue("s3_server")
    return server.url(str(uuid4()), credentials=True)


@pytest.fixture
def stored(database_url: str, root: str) -> Iterator[Api]:
    with Api(database_url, storage=root) as api:
        yield api


def logs_of(root: str, job_id: str) -> Storage:
    return artifacts.logs_of(root, UUID(job_id)).open()


def test_logs_are_listed_and_read(stored: Api, worker: Worker, root: str) -> None:
    search = worker.submit()
    path = f"/v1/searches/{search}/logs"
    assert stored.get(path).json() == {"items": []}
    storage = logs_of(root, search)
    storage.write(logs.runner_log(1), b"one\ntwo\nthree\n")
    storage.write(logs.runner_log(10), b"ten\n")
    storage.write(logs.trial_log(2, 1), "zwölf ä\n".encode())
    storage.write(logs.trial_log(0, 1), b"")
    storage.write("notes.txt", b"of somebody else")
    items = stored.get(path).json()["items"]
    assert [(item["name"], item["trial"], item["attempt"], item["size"]) for item in items] == [
        ("runner-attempt-10.log", None, 10, 4),
        ("runner-attempt-1.log", None, 1, 14),
        ("trial-0-attempt-1.log", 0, 1, 0),
        ("trial-2-attempt-1.log", 2, 1, 10),
    ]
    assert all(item["modified_at"].endswith("Z") for item in items)

    whole = stored.get(f"{path}/runner-attempt-1.log")
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.text == "one\ntwo\nthree\n"
    assert stored.get(f"{path}/runner-attempt-1.log?tail=2").text == "two\nthree\n"
    assert stored.get(f"{path}/runner-attempt-1.log?tail=100").text == "one\ntwo\nthree\n"
    assert stored.get(f"{path}/trial-2-attempt-1.log").text == "zwölf ä\n"
    again = {"If-None-Match": whole.headers["etag"]}
    assert stored.get(f"{path}/runner-attempt-1.log", headers=again).status_code == 304

    missing = stored.get(f"{path}/runner-attempt-2.log")
    assert (missing.status_code, missing.headers["content-type"]) == (404, PROBLEM)
    assert "GET /v1/searches/{id}/logs" in missing.json()["detail"]


def test_a_trainings_logs_are_under_its_own_path(stored: Api, root: str) -> None:
    training = stored.post("/v1/trainings", json=TRAINING).json()["id"]
    logs_of(root, training).write(logs.runner_log(1), b"of a training\n")
    path = f"/v1/trainings/{training}/logs"
    assert [item["name"] for item in stored.get(path).json()["items"]] == ["runner-attempt-1.log"]
    assert stored.get(f"{path}/runner-attempt-1.log").text == "of a training\n"
    for wrong in ("", "/runner-attempt-1.log"):
        assert stored.get(f"/v1/searches/{training}/logs{wrong}").status_code == 404


def test_logs_are_for_who_sees_the_search(
    database_url: str, engine: Engine, worker: Worker, tmp_path: Path
) -> None:
    search = worker.submit()
    logs_of(str(tmp_path), search).write(logs.runner_log(1), b"of somebody else")
    with transaction(engine) as session:
        secret = keys.create(session, "ben", Role.MEMBER).secret
    ben = {"Authorization": f"Bearer {secret}"}
    with Api(database_url, storage=str(tmp_path)) as api:
        for path in ("logs", "logs/runner-attempt-1.log"):
            url = f"/v1/searches/{search}/{path}"
            assert api.get(url).status_code == 200
            assert api.get(url, headers=ben).status_code == 404
            assert api.get(url, headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize(
    "name",
    [
        "..%2Fsecret.log",
        "%2e%2e%2fsecret.log",
        "%2e%2e",
        "../secret.log",
        "..%5Csecret.log",
        "%2Fetc%2Fpasswd",
        "runner-attempt-1.log%00",
        "runner-attempt-1.log%2F..%2Fsecret.log",
        "trial-0-attempt-1.log/../../secret.log",
        "secret.log",
    ],
)
def test_no_name_leads_out_of_the_folder(
    database_url: str, worker: Worker, tmp_path: Path, name: str
) -> None:
    search = worker.submit()
    logs_of(str(tmp_path), search).write(logs.runner_log(1), b"log")
    for folder in (tmp_path, tmp_path / search, tmp_path / search / "logs"):
        (folder / "secret.log").write_text("a secret")
    with Api(database_url, storage=str(tmp_path)) as api:
        answer = api.get(f"/v1/searches/{search}/logs/{name}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == PROBLEM
    assert "a secret" not in answer.text
    with pytest.raises(ValueError, match="is no name of a log"):
        logs.read(logs_of(str(tmp_path), search), "../secret.log")


def test_a_storage_that_is_away_is_a_problem_that_says_what_to_do(
    database_url: str, worker: Worker, s3_server: S3Server
) -> None:
    search = worker.submit()
    with (
        Api(database_url, storage=s3_server.url("away", credentials=True)) as api,
        s3_server.gone(),
    ):
        for path in ("logs", "logs/runner-attempt-1.log"):
            answer = api.get(f"/v1/searches/{search}/{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
            assert answer.json()["type"] == "urn:dartboard:problem:storage-unavailable"
            assert "DARTBOARD_STORAGE" in answer.json()["detail"]
            assert "s3://***@" in answer.json()["detail"]
            assert SECRET_KEY not in answer.text
            assert int(answer.headers["retry-after"]) > 0


def test_a_storage_that_is_a_file_is_a_problem_too(
    database_url: str, worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with Api(database_url, storage=str(tmp_path / "file")) as api:
        answer = api.get(f"/v1/searches/{worker.submit()}/logs")
    assert answer.status_code == 503
    assert str(tmp_path / "file") in answer.json()["detail"]


def test_without_a_setting_it_is_the_folder_below_home(
    database_url: str, worker: Worker, tmp_path: Path
) -> None:
    search = worker.submit()
    logs_of(str(tmp_path / "checkpoints"), search).write(logs.runner_log(1), b"log")
    with Api(database_url, home=tmp_path) as api:
        assert api.get(f"/v1/searches/{search}/logs/runner-attempt-1.log").text == "log"


def test_logs_of_a_folder_need_no_pyarrow(
    database_url: str, worker: Worker, tmp_path: Path
) -> None:
    search = worker.submit()
    logs_of(str(tmp_path), search).write(logs.runner_log(1), b"log")
    code = f"""
import sys
sys.modules["pyarrow"] = None
from tests.service.conftest import Api
with Api({database_url!r}, storage={str(tmp_path)!r}) as api:
    print(api.get("/v1/searches/{search}/logs/runner-attempt-1.log").text)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # The test's own modules may want pyarrow; the service must not.
    assert run.stdout == "log\n", run.stderr
