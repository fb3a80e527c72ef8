"""The secret that lets processes into the cluster."""

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx2
import psutil
import pytest

from tests.workers.conftest import RayCluster, Record, wait_until
from tests.workers.ray_door import BY_HEAD, BY_INIT, check_only_the_token_opens
from workers import ray_token
from workers.settings import WorkerSettings


@pytest.fixture(autouse=True)
def no_settings_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        # Set first, so that what `prepare` sets is taken back after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_token_is_made_once_and_readable_by_its_user_only(tmp_path: Path) -> None:
    ray_token.prepare(tmp_path)
    file = tmp_path / "run" / "ray-token"
    token = file.read_text()
    assert len(token) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(file)
    del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"]
    ray_token.prepare(tmp_path)
    assert file.read_text() == token
    assert list(file.parent.iterdir()) == [file]


def test_whoever_comes_first_makes_it(tmp_path: Path) -> None:
    def make(_: int) -> str:
        return ray_token.token_file(tmp_path).read_text()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_rays_own_settings_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "of the operator")
    ray_token.prepare(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.ray
@pytest.mark.parametrize("way", [BY_INIT, BY_HEAD])
def test_only_the_token_opens_the_embedded_cluster(
    ray_cluster: RayCluster, tmp_path: Path, way: str
) -> None:
    token = ray_token.token_file(ray_cluster.home)
    check_only_the_token_opens(way, ray_cluster.address, token, tmp_path)


@pytest.mark.ray
def test_the_embedded_cluster_runs_a_search_and_keeps_its_token_to_itself(
    ray_cluster: RayCluster,
    settings: WorkerSettings,
    start: Callable[..., object],
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    file = ray_token.token_file(ray_cluster.home)
    start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(file),
    )
    search = submit()
    wait_until(lambda: record(search).search.ended_at)
    assert record(search).search.status == "succeeded"

    token = file.read_bytes()
    holder = psutil.Process(json.loads((ray_cluster.home / "ray.json").read_text())["pid"])
    commands, ports = [], set()
    for part in [holder, *holder.children(recursive=True)]:
        # The processes of trials are about to end.
        with contextlib.suppress(psutil.NoSuchProcess):
            commands.append(" ".join(part.cmdline()))
            ports |= {
                connection.laddr.port
                for connection in part.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    assert any("raylet" in command for command in commands)
    assert [command for command in commands if token.decode() in command] == []
    # Where Ray itself logs.
    (session,) = {Path(found) for found in re.findall(r"--session[-_]dir=(\S+)", str(commands))}
    logs = [
        each
        for root in (settings.home, ray_cluster.home, session / "logs")
        for each in root.rglob("*")
        if each.is_file() and each != file
    ]
    assert {"dispatcher.log", "gcs_server.out"} <= {each.name for each in logs}
    assert [each for each in logs if token in each.read_bytes()] == []
    events = [(event.kind, event.data) for event in record(search).events]
    assert token.decode() not in str(events)

    # No port of it takes a job, or tells of any, over HTTP.
    assert int(ray_cluster.address.rpartition(":")[2]) in ports
    host = ray_cluster.address.rpartition(":")[0]
    for port in ports:
        for place in (host, "127.0.0.1"):
            for path in ("/api/jobs/", "/api/cluster_status"):
                with contextlib.suppress(httpx2.HTTPError):
                    answer = httpx2.get(f"http://{place}:{port}{path}", timeout=2)
                    assert answer.status_code >= 400, f"{port}{path} answers {answer.text[:200]}"
