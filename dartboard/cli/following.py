"""Watching a search until it ends: bars on a terminal, lines elsewhere, JSON for programs."""

import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console

from dartboard.cli import output
from dartboard.cli.rendering import findings
from dartboard.cli.views import Bars, Lines, View
from dartboard.client import Client
from dartboard.errors import ServerFailedError, ServerUnreachableError
from dartboard.models import Event, Search
from dartboard.streams import PATIENCE, OnTrouble

_LOOK_EVERY: Final = 1.0

RECENT: Final = 200
"""Events that tell what the states of the trials do not: who loads, and what was warned of."""


def follow_search(client: Client, search_id: str, *, after: int, as_json: bool) -> int:
    """Follows a search for the commands `follow` and `submit --follow`.

    Args:
        client: The server.
        search_id: The search.
        after: With JSON: the events to skip.
        as_json: Print one event a line.

    Returns:
        The exit code: 0 if it succeeded, 130 after a Ctrl-C, else 1.
    """
    try:
        if as_json:
            for event in client.follow(search_id, after):
                output.print_json(event, indent=None)
            search = client.get(search_id)
        else:
            console = output.stdout()
            search = show_progress(client, search_id, console)
            show_outcome(client, search, console)
    except KeyboardInterrupt:
        output.tell_interrupted(
            f"The search goes on. Watch it again: dartboard follow {search_id}\n"
            f"End it: dartboard cancel {search_id}",
            as_json=as_json,
        )
        return 130
    return 0 if search.status == "succeeded" else 1


def show_progress(client: Client, search_id: str, console: Console) -> Search:
    """Shows a search's progress until it ends.

    Returns:
        The search, ended.
    """
    live = console.is_terminal and not console.is_dumb_terminal
    view: View = Bars(console) if live else Lines(console)
    search: Search | None = None
    with view:
        # Lines tell the whole story; bars only need to know where it stands.
        for news in watch(client, search_id, replay=not live, on_trouble=view.trouble):
            if isinstance(news, Event):
                view.event(news)
            else:
                search = news
                view.snapshot(news)
    assert search is not None
    return search


def show_outcome(client: Client, search: Search, console: Console) -> None:
    """Prints how a search ended and what it found."""
    if search.status != "succeeded":
        reason = f" ({search.reason})" if search.reason else ""
        console.print(f"The search {search.status}{reason}. {search.message}", soft_wrap=True)
        return
    if search.message:
        console.print(search.message, soft_wrap=True)
    for part in findings(search, client.architectures(search.id)):
        console.print(part, soft_wrap=True)


def watch(
    client: Client, search_id: str, *, replay: bool, on_trouble: OnTrouble
) -> Iterator[Search | Event]:
    """Yields states of a search while it waits, its events while it runs, and its last state.

    Args:
        client: The server.
        search_id: The search.
        replay: Begin with its first event, not with where it stands and its recent ones.
        on_trouble: Told of each failed connection.
    """
    seen = 0 if replay else max(0, client.events(search_id, limit=1).last - RECENT)
    search = client.get(search_id)
    while True:
        yield search
        if search.status == "queued":
            # What it waits for changes without an event of its own.
            time.sleep(_LOOK_EVERY)
            search = _state(client, search_id, on_trouble)
            continue
        if search.ended and not replay:
            return
        for event in client.follow(search_id, seen, on_trouble=on_trouble):
            seen = event.number
            yield event
            if event.kind == "search.requeued":
                break
        else:
            yield _state(client, search_id, on_trouble)
            return
        search = _state(client, search_id, on_trouble)


def _state(client: Client, search_id: str, on_trouble: OnTrouble) -> Search:
    """A search as it is now, once the server answers again."""
    silent_since: float | None = None
    while True:
        try:
            return client.get(search_id)
        except (ServerUnreachableError, ServerFailedError) as error:
            now = time.monotonic()
            silent_since = silent_since or now
            if now - silent_since > PATIENCE:
                raise
            on_trouble(error)
        time.sleep(_LOOK_EVERY)
