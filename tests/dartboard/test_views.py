"""What a running search looks like, and an outage meanwhile."""

import io
import threading

import pytest
from rich.console import Console

from dartboard import Client, Search, ServerUnreachableError
from dartboard.cli.following import watch
from dartboard.cli.views import Bars, Lines
from tests.dartboard.conftest import COLLAPSED, GENOTYPES, SPEC, Served, Worker

OUTAGE = ServerUnreachableError("gone")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False)


def printed(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_an_outage_is_told_once(console: Console, client: Client, worker: Worker) -> None:
    search = client.submit(SPEC)
    lease = worker.claim()
    worker.load(lease, search.trials[0].id)
    event = client.events(search.id).items[-1]
    lines = Lines(console)
    with lines:
        lines.snapshot(client.get(search.id))
        for _ in range(3):
            lines.trouble(OUTAGE)
        lines.event(event)
        lines.trouble(OUTAGE)
        lines.trouble(OUTAGE)
    assert printed(console) == [
        "the server does not answer; trying again",
        "trial 0 (seed 0): starting: it loads PyTorch and the data",
        "the server does not answer; trying again",
    ]


def test_bars_tell_what_loads_and_what_was_warned_of(
    console: Console, client: Client, worker: Worker
) -> None:
    search = client.submit(SPEC)
    lease = worker.claim()
    first, second = search.trials
    bars = Bars(console)
    bars.snapshot(client.get(search.id))
    console.print(bars)
    assert [line.split()[-1] for line in printed(console)[-2:]] == ["queued", "queued"]
    worker.train(lease, first.id, epochs=1, genotype=GENOTYPES[0], warnings=(COLLAPSED,))
    worker.load(lease, second.id)
    for event in client.events(search.id).items:
        bars.event(event)
    console.print(bars)
    *_, second_line, note = printed(console)
    assert second_line.split()[-1] == "starting"
    assert note == f"trial 0 (seed 0), epoch 1: {COLLAPSED.message}"


def test_watching_outlives_an_outage_while_the_search_waits(
    client: Client, worker: Worker, server: Served
) -> None:
    search = client.submit(SPEC)
    troubles: list[Exception] = []
    news = watch(client, search, replay=False, on_trouble=troubles.append)
    assert isinstance(next(news), Search)
    server.stop()
    worker.run()
    later = threading.Timer(2.5, server.start)
    later.start()
    *_, last = news
    later.join()
    assert troubles
    assert isinstance(last, Search)
    assert last.status == "succeeded"
