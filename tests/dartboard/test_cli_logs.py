"""The command against a real server, as a user types it: logs, pipes and resources."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from dartboard import Client
from store import leases, queue
from store.leases import Capacity, Node
from store.logs import runner_log, trial_log
from store.sessions import transaction
from tests.dartboard.conftest import SPEC, Dartboard, Served, Worker


def test_the_logs_of_a_search_are_its_newest_runners_and_its_failed_trials(
    dartboard: Dartboard, server: Served, client: Client, worker: Worker
) -> None:
    search = client.submit(SPEC)
    nothing = dartboard("logs", search.id)
    assert nothing.code == 1
    assert f"no log of {search.id} is kept: it is queued, at attempt 0" in nothing.err
    for attempt in (1, 9, 10):
        server.keep_log(search.id, runner_log(attempt), f"one\n\x1b[36mattempt {attempt}\x1b[0m\n")
    for trial in (0, 1):
        server.keep_log(search.id, trial_log(trial, 9), f"trial {trial}\n")
    said = dartboard("logs", "last")
    assert said.out == "one\nattempt 10\n"
    assert said.err.startswith("== runner-attempt-10.log, 24 B, ")
    one = dartboard("logs", str(search.id)[:8].upper(), "-n", 1, "--json").json
    assert list(one) == ["runner-attempt-10.log"]
    assert one["runner-attempt-10.log"]["lines"] == ["attempt 10"]
    assert dartboard("logs", search.id, "--attempt", 9).out == "one\nattempt 9\n"
    assert dartboard("logs", search.id, "--trial", 1).out == "trial 1\n"

    lease = worker.claim()
    worker.fail(lease, search.trials[1].id)
    assert dartboard("logs", search.id).out == "one\nattempt 10\ntrial 1\n"
    assert dartboard("logs", search.id, "--attempt", 9).out == "one\nattempt 9\ntrial 1\n"


def test_the_logs_that_there_are_can_be_listed(
    dartboard: Dartboard, server: Served, client: Client
) -> None:
    search = client.submit(SPEC)
    assert dartboard("logs", search.id, "--list").err == "No log is kept.\n"
    assert dartboard("logs", search.id, "--list", "--json").json == []
    for name in (runner_log(1), runner_log(2), trial_log(1, 1), trial_log(0, 1)):
        server.keep_log(search.id, name, "x" * 2048)
    listed = dartboard("logs", search.id, "--list")
    assert [line.split()[:4] for line in listed.out.splitlines()[1:]] == [
        ["runner-attempt-2.log", "runner", "2", "2.0"],
        ["runner-attempt-1.log", "runner", "1", "2.0"],
        ["trial-0-attempt-1.log", "0", "1", "2.0"],
        ["trial-1-attempt-1.log", "1", "1", "2.0"],
    ]
    some = dartboard("logs", search.id, "--list", "--trial", 1, "--json").json
    assert [(log["name"], log["size"]) for log in some] == [("trial-1-attempt-1.log", 2048)]
    assert dartboard("logs", search.id, "--list", "--attempt", 7, "--json").json == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--trial", "7"], 1, "trial 7 of"),
        (["--trial", "0", "--attempt", "1"], 1, "has no log of its own of attempt 1"),
        (["--attempt", "3"], 1, "no log of attempt 3 of"),
    ],
)
def test_a_log_that_is_not_there_is_told(
    dartboard: Dartboard,
    server: Served,
    client: Client,
    options: list[str],
    code: int,
    message: str,
) -> None:
    search = client.submit(SPEC)
    server.keep_log(search.id, runner_log(1), "")
    said = dartboard("logs", search.id, *options, "--json")
    assert said.code == code
    assert message in json.loads(said.err)["message"]


def test_logs_of_a_search_need_a_server_and_those_of_a_part_take_no_trial(
    dartboard: Dartboard, server: Served, client: Client
) -> None:
    search = client.submit(SPEC)
    server.stop()
    assert dartboard("logs", search.id).code == 3
    for option in (["--trial", "1"], ["--attempt", "1"], ["--list"]):
        said = dartboard("logs", "api", *option)
        assert said.code == 2
        assert "go with a search or training" in said.err


def test_a_reader_that_has_seen_enough_is_no_error(client: Client, server: Served) -> None:
    for _ in range(3):
        client.submit(SPEC)
    done = subprocess.run(
        f"'{sys.executable}' -m dartboard list --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DARTBOARD_URL": server.url},
    )
    assert (done.stdout, done.stderr) == ("[", "")


def test_shares_and_custom_resources_are_shown(
    dartboard: Dartboard, client: Client, engine: Engine, worker: Worker
) -> None:
    settings = "--set", "resources.gpus=0.25", "--set", "resources.custom.a100=1"
    said = dartboard("submit", "--preset", "digits-quick", *settings, "--dry-run")
    assert "2 CPUs, 0.5 GPUs and 2 a100 run all trials at once" in " ".join(said.out.split())
    said = dartboard("submit", "--preset", "digits-quick", "--set", "resources.gpus=1.5")
    assert said.code != 0
    assert "above 1 whole GPUs" in said.err
    capacity = Capacity((Node(4, 1, custom={"a100": 4}),))
    with transaction(engine) as session:
        queue.heartbeat(session, "test", host="here", pid=1, capacity=capacity)
    dartboard("submit", "--preset", "digits-quick", *settings)
    with transaction(engine) as session:
        assert leases.claim(session, capacity, holder="test", duration=timedelta(minutes=1))
    shown = dartboard("queue").out
    assert "running searches need 2 CPUs and 0.5 GPUs" in shown
    assert "besides: 4 a100, of which they need 2" in shown
    seen = client.queue()
    assert (seen.running[0].gpus, seen.running[0].custom) == (0.5, {"a100": 2})
    assert seen.cluster.nodes[0].custom == {"a100": 4}
