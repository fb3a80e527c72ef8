"""The secret that lets processes into the cluster."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workers import ray_token


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
