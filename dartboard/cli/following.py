"""Watching a job until it ends: bars on a terminal, lines elsewhere, JSON for programs."""

import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console

from dartboard.cli import output
from dartboard.cli.rendering import findings, results
from dartboard.cli.views import Bars, Lines, View
from dartboard.client import Client
from dartboard.errors import ServerFailedError, ServerUnreachableError
from dartboard.models import Event, Search, Training
from dartboard.streams import PATIENCE, OnTrouble

_LOOK_EVERY: Final = 1.0

RECENT: Final = 200
"""Events that tell what the states of the trials do not: who loads, and what was warned of."""


def follow_job(client: Client, job: Search | Training, *, after: int, as_json: bool) -> int:
    """Follows a search or a training for the commands `follow`, `submit` and `train`.

    Args:
        client: The server.
        job: The search or training.
        after: With JSON: the events to skip.
        as_json: Print one event a line.

    Returns:
        The exit code: 0 if it succeeded, 130 after a Ctrl-C, else 1.
    """
    try:
        if as_json:
            for event in client.follow(job, after):
                output.print_json(event, indent=None)
            job = client.get(job)
        else:
            console = output.stdout()
            job = show_progress(client, job, console)
            show_outcome(client, job, console)
    except KeyboardInterrupt:
        output.tell_interrupted(
            f"The {_noun(job)} goes on. Watch it again: dartboard follow {job.id}\n"
            f"End it: dartboard cancel {job.id}",
            as_json=as_json,
        )
        return 130
    return 0 if job.status == "succeeded" else 1


def show_progress(client: Client, job: Search | Training, console: Console) -> Search | Training:
    """Shows the progress of a search or a training until it ends.

    Returns:
        The search or training, ended.
    """
    live = console.is_terminal and not console.is_dumb_terminal
    view: View = Bars(console) if live else Lines(console)
    with view:
        # Lines tell the whole story; bars only need to know where it stands.
        for news in watch(client, job, replay=not live, on_trouble=view.trouble):
            if isinstance(news, Event):
                view.event(news)
            else:
                job = news
                view.snapshot(news)
    return job


def show_outcome(client: Client, job: Search | Training, console: Console) -> None:
    """Prints how a search or training ended and what it came to."""
    if job.status != "succeeded":
        reason = f" ({job.reason})" if job.reason else ""
        console.print(f"The {_noun(job)} {job.status}{reason}. {job.message}", soft_wrap=True)
        return
    if job.message:
        console.print(job.message, soft_wrap=True)
    found = (
        results(job) if isinstance(job, Training) else findings(job, client.architectures(job.id))
    )
    for part in found:
        console.print(part, soft_wrap=True)


def watch(
    client: Client, job: Search | Training, *, replay: bool, on_trouble: OnTrouble
) -> Iterator[Search | Training | Event]:
    """Yields states of a job while it waits, its events while it runs, and its last state.

    Args:
        client: The server.
        job: The search or training.
        replay: Begin with its first event, not with where it stands and its recent ones.
        on_trouble: Told of each failed connection.
    """
    seen = 0 if replay else max(0, client.events(job, limit=1).last - RECENT)
    job = client.get(job)
    while True:
        yield job
        if job.status in ("queued", "paused"):
            # What it waits for changes without an event of its own.
            time.sleep(_LOOK_EVERY)
            job = _state(client, job, on_trouble)
            continue
        if job.ended and not replay:
            return
        for event in client.follow(job, seen, on_trouble=on_trouble):
            seen = event.number
            yield event
            if event.trial_id is None and event.kind.endswith((".requeued", ".paused")):
                break
        else:
            yield _state(client, job, on_trouble)
            return
        job = _state(client, job, on_trouble)


def _state(client: Client, job: Search | Training, on_trouble: OnTrouble) -> Search | Training:
    """A search or training as it is now, once the server answers again."""
    silent_since: float | None = None
    while True:
        try:
            return client.get(job)
        except (ServerUnreachableError, ServerFailedError) as error:
            now = time.monotonic()
            silent_since = silent_since or now
            if now - silent_since > PATIENCE:
                raise
            on_trouble(error)
        time.sleep(_LOOK_EVERY)


def _noun(job: Search | Training) -> str:
    return "training" if isinstance(job, Training) else "search"
