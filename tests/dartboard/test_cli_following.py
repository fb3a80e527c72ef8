"""The command against a real server, as a user types it: following."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from dartboard import Client, Search, Training
from dartboard.cli.views import Lines
from search_core.genotype import parse
from tests.dartboard.conftest import (
    COLLAPSED,
    GENOTYPES,
    SPEC,
    Dartboard,
    Served,
    Worker,
    genotypes_in,
)


def test_following_prints_each_event_and_then_what_was_found(
    dartboard: Dartboard, found: str
) -> None:
    said = dartboard("follow", found)
    assert said.code == 0
    assert "trial 1 (seed 1): epoch 2/2, train loss 0.5000" in said.out
    assert "trial 0 (seed 0): epoch 1/2, train loss 1.0000, validation loss -" in said.out
    for genotype in GENOTYPES:
        assert genotype.hash in said.out
        assert any(parse(text) == genotype for text in genotypes_in(said.out))
    assert "Recommended: Trial 1 (seed 1) has the highest validation accuracy" in said.out


def test_following_tells_what_loads_and_what_was_warned_of(
    dartboard: Dartboard, client: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = client.submit(SPEC)
    is_shown = threading.Event()
    show = Lines.snapshot

    def snapshot(self: Lines, job: Search | Training) -> None:
        show(self, job)
        is_shown.set()

    monkeypatch.setattr(Lines, "snapshot", snapshot)

    def run() -> None:
        assert is_shown.wait(60)
        lease = worker.claim()
        for trial in search.trials:
            worker.load(lease, trial.id)
            worker.train(lease, trial.id, epochs=2, genotype=GENOTYPES[0], warnings=(COLLAPSED,))
            worker.succeed(lease, trial.id, GENOTYPES[0])
        worker.finish(lease)

    runs = threading.Thread(target=run)
    runs.start()
    lines = dartboard("follow", search.id).out.splitlines()
    runs.join()
    assert lines[:4] == [
        "queued, place 1: no dispatcher is running",
        "running",
        "trial 0 (seed 0): starting: it loads PyTorch and the data",
        "trial 0 (seed 0): started",
    ]
    assert lines[4].startswith("trial 0 (seed 0): epoch 1/2, train loss 1.0000")
    assert lines[5] == f"trial 0 (seed 0): warning at epoch 1: {COLLAPSED.message}"


def test_showing_what_loads_and_what_was_warned_of(
    dartboard: Dartboard, client: Client, worker: Worker
) -> None:
    search = client.submit(SPEC)
    lease = worker.claim()
    first, second = search.trials
    worker.train(lease, first.id, epochs=2, genotype=GENOTYPES[0], warnings=(COLLAPSED,))
    assert "starting" not in dartboard("show", search.id).out
    worker.load(lease, second.id)
    shown = dartboard("show", search.id).out
    assert f"warning: trial 0 (seed 0), epoch 2: {COLLAPSED.message}" in shown
    assert shown.count("warning: ") == 1
    assert [line.split()[:3] for line in shown.splitlines() if "starting" in line] == [
        ["1", "1", "starting"]
    ]
    worker.give_back(lease)
    assert "starting" not in dartboard("show", search.id).out


def test_following_with_json_prints_an_event_a_line(
    dartboard: Dartboard, client: Client, worker: Worker
) -> None:
    runs = threading.Timer(0.2, worker.run)
    search = client.submit(SPEC)
    runs.start()
    said = dartboard("follow", search.id, "--json")
    runs.join()
    events = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 0
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "search.succeeded"
    after = dartboard("follow", search.id, "--json", "--after", len(events) - 1)
    assert len(after.out.splitlines()) == 1


def test_submitting_and_following_in_one(
    dartboard: Dartboard, server: Served, worker: Worker
) -> None:
    def run_once_it_waits() -> None:
        deadline = time.monotonic() + 60
        with Client() as watching:
            while not any(watching.list(status="queued")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        worker.run()

    runs = threading.Thread(target=run_once_it_waits)
    runs.start()
    said = dartboard("submit", "--preset", "digits-quick", "--follow", "--json")
    runs.join()
    search, *events = [json.loads(line) for line in said.out.splitlines()]
    assert search["status"] == "queued"
    assert events[-1]["kind"] == "search.succeeded"
    assert said.code == 0


def test_following_a_search_that_fails_or_is_cancelled_exits_with_1(
    dartboard: Dartboard, client: Client, worker: Worker
) -> None:
    failed = client.submit(SPEC)
    lease = worker.claim()
    for trial in failed.trials:
        worker.fail(lease, trial.id)
    worker.finish(lease)
    said = dartboard("follow", failed.id)
    assert said.code == 1
    assert "trial 0 (seed 0): failed: The loss diverged." in said.out
    assert said.out.endswith("The search failed (diverged). The loss diverged.\n")
    assert said.out.count("search failed") == 1
    assert "\nfailed" not in said.out
    cancelled = client.cancel(client.submit(SPEC).id)
    assert dartboard("follow", cancelled.id).code == 1
    assert "diverged" in dartboard("show", failed.id).out


def test_ctrl_c_while_following_leaves_the_search_running(client: Client, server: Served) -> None:
    search = client.submit(SPEC)
    process = subprocess.Popen(
        [sys.executable, "-m", "dartboard", "follow", str(search.id)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DARTBOARD_URL": server.url},
        # Whoever starts the tests in the background hands SIGINT on as ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            assert process.stdout is not None
            assert "no dispatcher is running" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"dartboard follow {search.id}" in err
    assert f"dartboard cancel {search.id}" in err
    assert client.get(search.id).status == "queued"
