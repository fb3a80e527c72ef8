"""`follow`, `show` and `list`."""

from datetime import datetime
from typing import Annotated

import typer

from dartboard.cli import output
from dartboard.cli.options import JobRef, Json, Url, connect

_STATUSES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")


def follow(
    reference: JobRef,
    after: Annotated[
        int, typer.Option(min=0, help="With --json: only events with larger numbers.")
    ] = 0,
    as_json: Json = False,
    url: Url = None,
) -> int:
    """Watch a search or a training until it ends. Ctrl-C stops the watching only.

    With --json: one event a line, from the first one on. The exit code is 0 if it succeeded.
    """
    from dartboard.cli.following import follow_job
    from dartboard.cli.references import job

    with connect(url) as client:
        return follow_job(client, job(client, reference), after=after, as_json=as_json)


def show(reference: JobRef, as_json: Json = False, url: Url = None) -> None:
    """Show all of a search or a training: its state, trials, what it came to.

    With --json: the search, with its `architectures`, or the training.
    """
    from dartboard.cli.following import RECENT
    from dartboard.cli.progress import SearchProgress
    from dartboard.cli.references import job
    from dartboard.cli.rendering import search_page
    from dartboard.models import Training

    with connect(url) as client:
        named = job(client, reference)
        last = client.events(named, limit=1).last
        recent = client.events(named, after=max(0, last - RECENT), limit=RECENT).items
        found = client.get(named)
        ranked = () if isinstance(found, Training) else client.architectures(found.id)
    if as_json:
        more = {} if isinstance(found, Training) else {"architectures": output.plain(ranked)}
        output.print_json({**output.plain(found), **more})
        return
    progress = SearchProgress(found)
    for event in recent:
        progress.apply(event)
    # The search was asked for after its events.
    progress.update(found)
    console = output.stdout()
    for part in search_page(progress, ranked):
        console.print(part, soft_wrap=isinstance(part, str))


def list_searches(
    status: Annotated[
        list[str] | None, typer.Option(help="Only with this status. Repeatable: any of them.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Only of this kind of space.")] = None,
    name: Annotated[str | None, typer.Option(help="Only with exactly this name.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only with this label. Repeatable: all of them."),
    ] = None,
    created_after: Annotated[
        datetime | None, typer.Option(help="Only created at or after this local time.")
    ] = None,
    created_before: Annotated[
        datetime | None, typer.Option(help="Only created before this local time.")
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="The order.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most searches.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List searches, the newest first.

    With --json: an array of searches.
    """
    from itertools import islice

    from dartboard.cli.rendering import search_table
    from dartboard.cli.specs import parse_labels

    for each in status or ():
        if each not in _STATUSES:
            raise typer.BadParameter(f"no status {each!r}; there are: {', '.join(_STATUSES)}")
    with connect(url) as client:
        matching = client.list(
            status=status or (),
            space=space,
            name=name,
            owner=owner,
            labels=parse_labels(label or ()),
            created_after=created_after,
            created_before=created_before,
            oldest_first=oldest_first,
            page_size=min(limit + 1, 200),
        )
        found = list(islice(matching, limit + 1))
    shown = found[:limit]
    if as_json:
        output.print_json(shown)
        return
    if not shown:
        output.stderr().print("No search matches. `dartboard submit` makes one.")
        return
    output.stdout().print(search_table(shown))
    if len(found) > limit:
        output.stderr().print(f"There are more; -n {2 * limit} shows more of them.")
