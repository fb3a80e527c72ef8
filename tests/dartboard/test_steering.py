"""Steering searches from programs and from the command line."""

import json
from uuid import uuid4

import pytest

from dartboard import Client
from dartboard.cli import main
from dartboard.errors import ConflictError, NotFoundError
from tests.dartboard.conftest import SPEC, Worker

TRAINING = {"architecture": "DARTS_V2", "preset": "retrain-digits"}


def test_a_program_pauses_resumes_cancels_retries_and_deletes(client: Client) -> None:
    for job in (client.submit(SPEC), client.train(TRAINING)):
        assert client.pause(job).status == "paused"
        assert client.resume(job).status == "queued"
        changed = client.change(job, name="new", priority=3, labels={"team": "vision"})
        assert (changed.name, changed.priority) == ("new", 3)
        assert type(changed) is type(job)
        with pytest.raises(ConflictError, match="cannot become deleted"):
            client.delete(job)
        assert client.cancel(job).status == "cancelled"
        assert client.retry(job).status == "queued"
        client.cancel(job)
        client.delete(job)
        client.delete(job)
        with pytest.raises(NotFoundError):
            client.get(job)


def test_the_command_steers(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    search = client.submit(SPEC)

    def said(*arguments: str, code: int = 0) -> str:
        assert main([*arguments]) == code
        return capsys.readouterr().out

    def refused(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "is paused; `dartboard resume`" in said("pause", "last")
    assert "paused" in said("list", "--status", "paused")
    assert f"dartboard resume {search.id}" in said("show", "last")
    assert f"is queued; `dartboard follow {search.id}`" in said("resume", "last")
    assert "has name, priority changed" in said("change", "last", "--name", "b", "--priority", "2")
    assert json.loads(said("cancel", "last", "--json"))["status"] == "cancelled"
    assert "is queued" in said("retry", "last")
    said("cancel", "last")
    assert "cancel it, or wait" in refused("delete", str(client.submit(SPEC).id))
    assert "a retry runs what did not finish" in refused("resume", str(search.id))
    assert "is deleted" in said("delete", str(search.id))
    assert "was deleted before" in said("delete", str(search.id))
    assert "No search or training has the id" in refused("delete", str(uuid4()))
    client.cancel(client.submit(SPEC))
    said("change", "last", code=2)
    said("retry", code=2)
    said("retry", "last", "--trial", "x", code=2)


def test_what_is_to_be_paused_says_so(
    client: Client, worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    client.submit(SPEC)
    worker.sign_on()
    worker.claim()
    assert main(["pause", "last"]) == 0
    assert "pauses after its epochs; `dartboard follow" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert "running (pausing)" in capsys.readouterr().out
    assert main(["resume", "last"]) == 0
    assert "is running" in capsys.readouterr().out
