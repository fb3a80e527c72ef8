"""Webhooks from programs and from the command line, and the receiver of the documentation."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from dartboard import Client
from dartboard.errors import InvalidRequestError, NotFoundError
from dartboard.webhooks import NewWebhook
from tests.dartboard.conftest import SPEC, Dartboard, Served, Worker
from tests.service.receivers import receiving
from tests.store.conftest import wait_until

DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"


def test_a_webhook_from_its_making_to_its_end(client: Client) -> None:
    with receiving() as receiver:
        made = client.webhooks.create(receiver.url, ["search.*"], name="room")
        assert isinstance(made, NewWebhook)
        assert made.secret.startswith("dbw_")
        (listed,) = client.webhooks.list()
        assert listed == client.webhooks.get(made.id)
        assert (listed.name, listed.kinds, listed.scope) == ("room", ("search.*",), "visible")
        searches = client.submit_all([SPEC, SPEC, SPEC])
        wait_until(lambda: len(list(client.webhooks.deliveries(made.id, status="delivered"))) == 3)
        log = list(client.webhooks.deliveries(made.id, page_size=2))
        assert [each.search_id for each in reversed(log)] == [each.id for each in searches]
        body = client.webhooks.delivery(made.id, log[0].id).payload
        assert body is not None
        assert body["search"]["id"] == str(searches[2].id)
        assert client.webhooks.redeliver(made.id, log[0].id).status == "pending"
        wait_until(lambda: len(receiver.received) == 4)
        assert client.webhooks.test(made.id).kind == "ping"
        wait_until(lambda: receiver.kinds()[-1] == "ping")
        changed = client.webhooks.change(made.id, disabled=True, kinds=["*"])
        assert (changed.kinds, changed.disabled_why) == (("*",), "Its owner disabled it.")
        client.webhooks.delete(made.id)
        with pytest.raises(NotFoundError):
            client.webhooks.get(made.id)
        with pytest.raises(InvalidRequestError, match="/kinds/0"):
            client.webhooks.create(receiver.url, ["serach.*"])


def test_webhooks_from_the_command_line(dartboard: Dartboard, server: Served) -> None:
    with receiving() as receiver:
        said = dartboard("webhooks", "create", receiver.url, "-k", "search.queued", "--name", "x")
        assert said.code == 0
        assert re.fullmatch(r"dbw_[\w-]{43}\n", said.out)
        (listed,) = dartboard("webhooks", "list", "--json").json
        assert "secret" not in listed
        assert listed["id"] in said.err
        assert "enabled" in dartboard("webhooks", "list").out
        ping = dartboard("webhooks", "test", listed["id"])
        assert (ping.code, ping.out) == (0, "Delivered: it answered with status 204.\n")
        receiver.answer = lambda _: (500, {})
        bad = dartboard("webhooks", "test", listed["id"])
        assert bad.code == 1
        assert "It answered with status 500. It will be sent again." in bad.out
        failing = dartboard("webhooks", "list").out
        assert "failing for" in " ".join(failing.split())
        shown = dartboard("webhooks", "deliveries", listed["id"], "--json").json
        assert [each["status"] for each in shown] == ["pending", "delivered"]
        assert "ping" in dartboard("webhooks", "deliveries", listed["id"]).out
        receiver.answer = lambda _: (200, {})
        again = dartboard("webhooks", "redeliver", listed["id"], shown[0]["id"])
        assert (again.code, again.out) == (0, "Delivered: it answered with status 200.\n")
        assert "disabled: Its owner" in dartboard("webhooks", "disable", listed["id"]).out
        assert dartboard("webhooks", "test", listed["id"]).code == 1
        assert "enabled" in dartboard("webhooks", "enable", listed["id"]).out
        assert dartboard("webhooks", "delete", listed["id"]).code == 0
        assert dartboard("webhooks", "list", "--json").json == []
    name = ("--idempotency-key", "room", "--json")
    first = dartboard("webhooks", "create", "https://8.8.8.8/", *name)
    assert dartboard("webhooks", "create", "https://8.8.8.8/", *name).json == first.json
    assert dartboard("webhooks", "create", "--all", "https://8.8.8.8/", "--json").json["scope"] == (
        "all"
    )
    assert "must be an address" in dartboard("webhooks", "create", "ftp://x").err


@contextmanager
def _documented(folder: Path, secret: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """The receiver of the documentation, as it stands there."""
    (code,) = re.findall(r"```python\n(import hashlib.*?)```", DOCS.read_text(), re.DOTALL)
    (folder / "receiver.py").write_text(code)
    environment = {**os.environ, "DARTBOARD_WEBHOOK_SECRET": secret, "PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "receiver.py"], cwd=folder, env=environment, stdout=-1, text=True
    ) as receiver:
        try:
            wait_until(lambda: _listens(port))
            yield receiver
        finally:
            receiver.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_receiver_of_the_documentation_believes_what_is_signed(
    client: Client, worker: Worker, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    made = client.webhooks.create(url)
    with _documented(tmp_path, made.secret, port) as receiver:
        client.submit(SPEC)
        worker.run()
        wait_until(lambda: not list(client.webhooks.deliveries(made.id, status="pending")))
        # Another webhook has another secret.
        other = client.webhooks.create(url)
        client.webhooks.test(other.id)
        wait_until(
            lambda: [e.response_status for e in client.webhooks.deliveries(other.id)] == [401]
        )
        # Nor what was signed long ago, nor what was changed on the way.
        newest = next(client.webhooks.deliveries(made.id))
        body = b'{"kind": "search.succeeded", "search": null}'
        headers = {"Dartboard-Timestamp": "1", "Dartboard-Signature": "v1=0"}
        assert httpx2.post(url, content=body, headers=headers).status_code == 401
        headers["Dartboard-Timestamp"] = str(int(time.time()))
        assert httpx2.post(url, content=body, headers=headers).status_code == 401
        assert newest.status == "delivered"
        receiver.kill()
        assert receiver.stdout is not None
        printed = receiver.stdout.read().splitlines()
    assert printed[0] == "search.queued small queued"
    assert printed[-1] == "search.succeeded small succeeded"
    assert "search.best small running" in printed
