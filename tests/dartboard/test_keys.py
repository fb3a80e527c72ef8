"""Keys, owners and who one is, from programs and from the command line."""

import json
from pathlib import Path

import pytest

from dartboard import Client
from dartboard.cli import main
from dartboard.errors import DartboardError, KeyRefusedError, NotFoundError
from dartboard.settings import Settings, is_this_machine
from tests.dartboard.conftest import SPEC, Served


def test_a_key_is_made_used_listed_and_revoked(client: Client, server: Served) -> None:
    made = client.keys.create("ana", name="notebook", days=7)
    assert (made.owner, made.role, made.name) == ("ana", "member", "notebook")
    assert made.expires_at is not None
    with Client(server.url, key=made.key) as ana:
        assert (ana.me().owner, ana.me().role) == ("ana", "member")
        assert ana.submit(SPEC).owner == "ana"
        assert [key.id for key in ana.keys.list()] == [made.id]
        assert len(list(ana.list(owner="ana"))) == 1
        assert list(client.list(owner="nobody")) == []
        assert client.keys.revoke(made.id).revoked_at is not None
        with pytest.raises(KeyRefusedError, match="was revoked") as refused:
            ana.me()
    assert refused.value.status == 401
    with pytest.raises(NotFoundError):
        client.keys.revoke("01979d3c-6f5e-7a31-9c53-5f2f0c1d8e4b")


def test_an_owner_is_changed(client: Client) -> None:
    client.keys.create("ana")
    client.owners.change("ana", weight=2, max_gpus=0.5, teams=["vision"])
    changed = client.owners.change("ana", max_gpus=None)
    assert (changed.weight, changed.max_gpus, changed.teams) == (2.0, None, ("vision",))
    assert client.owners.get("ana") == changed
    assert [owner.name for owner in client.owners.list()] == ["ana", "local"]


def test_no_key_and_a_mangled_one_are_told(
    server: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DARTBOARD_API_KEY")
    monkeypatch.setenv("DARTBOARD_HOME", str(tmp_path))
    with Client() as client, pytest.raises(KeyRefusedError, match="This takes a key"):
        client.queue()
    with pytest.raises(DartboardError, match="as one word"):
        Client(key="dbk_a\ndbk_b")


def test_the_key_of_this_machine_is_shown_to_this_machine_only(tmp_path: Path) -> None:
    settings = Settings.read({"DARTBOARD_HOME": str(tmp_path)})
    assert settings.key_for("http://127.0.0.1:8000") is None
    (tmp_path / "api-key").write_text("dbk_mine\n")
    for here in ("http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000"):
        assert is_this_machine(here)
        assert settings.key_for(here) == "dbk_mine"
    for there in ("http://192.0.2.7:8000", "https://example.org", "http://127.0.0.1.example.org"):
        assert settings.key_for(there) is None
    named = Settings.read({"DARTBOARD_HOME": str(tmp_path), "DARTBOARD_API_KEY": "dbk_named"})
    assert named.key_for("https://example.org") == "dbk_named"


def test_the_command_makes_lists_and_revokes(
    server: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["keys", "create", "--owner", "ana", "--name", "notebook"]) == 0
    printed = capsys.readouterr()
    secret = printed.out.removesuffix("\n")
    assert secret.startswith("dbk_")
    assert secret not in printed.err
    assert main(["keys", "list", "--json"]) == 0
    keys = json.loads(capsys.readouterr().out)
    ana = next(key for key in keys if key["owner"] == "ana")
    assert main(["keys", "list", "--owner", "ana"]) == 0
    assert "in use" in capsys.readouterr().out
    monkeypatch.setenv("DARTBOARD_API_KEY", secret)
    assert main(["whoami"]) == 0
    assert capsys.readouterr().out.startswith("ana at http://127.0.0.1:")
    assert main(["keys", "create", "--role", "admin"]) == 1
    assert "ask an admin" in capsys.readouterr().err
    assert main(["keys", "revoke", ana["id"]]) == 0
    assert "lets nobody in any more" in capsys.readouterr().out
    assert main(["whoami", "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["error"] == "key_refused"


def test_the_command_sets_owners(
    server: Served, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.keys.create("ana")
    options = ["--weight", "2", "--max-running", "3", "--max-gpus", "none", "--team", "vision"]
    assert main(["owners", "set", "ana", *options]) == 0
    assert capsys.readouterr().out.split()[-6:] == ["ana", "2", "0", "3", "-", "vision"]
    assert main(["owners", "set", "ana", "--team", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["teams"] == []
    assert main(["owners", "list"]) == 0
    assert "local" in capsys.readouterr().out
    assert main(["owners", "set", "ana"]) == 2
    assert main(["owners", "set", "ana", "--max-running", "many"]) == 2
    assert main(["owners", "set", "nobody", "--weight", "2"]) == 1
