"""`demo`: the whole way of a search in one command, in a deployment of its own."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

import typer

from dartboard.cli import output
from dartboard.cli.local import reporter
from dartboard.cli.options import Json
from dartboard.cli.specs import apply_settings
from dartboard.cli.submitting import Settings as SettingsOption
from dartboard.errors import DartboardError
from dartboard.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from dartboard.client import Client
    from dartboard.models import Search

_FOLDER = Path("demo")
_CELLS: tuple[Literal["normal", "reduce"], ...] = ("normal", "reduce")


def demo(
    preset: Annotated[str, typer.Option(help="What to search.")] = "digits-quick",
    settings: SettingsOption = None,
    as_json: Json = False,
) -> int:
    """Search an architecture for handwritten digits, live, and draw it into demo/.

    Starts a PostgreSQL, an API, a dispatcher and a Ray of its own, apart from any `dartboard up`,
    and stops them again. With --json: what it found, once it is over.
    """
    began = time.monotonic()
    console = output.stderr() if as_json else output.stdout()
    body: dict[str, Any] = {"preset": preset, "name": "demo", "trials": {"seeds": [0, 1]}}
    apply_settings(body, settings or ())
    with _deployment(console, as_json=as_json) as client:
        search = _search(client, body, console)
        pictures = _draw(client, search)
        ranked = client.architectures(search.id)
    seconds = time.monotonic() - began
    if as_json:
        output.print_json(
            {
                "search": output.plain(search),
                "architectures": output.plain(ranked),
                "pictures": [str(picture) for picture in pictures],
                "seconds": round(seconds, 1),
            }
        )
        return 0
    console.print()
    console.print(f"Drawn: {' and '.join(str(picture) for picture in pictures)}", soft_wrap=True)
    console.print(f"Everything is stopped again. The demo took {seconds:.0f} s.")
    console.print("Next: `dartboard up` leaves it running; `dartboard submit --help`.")
    return 0


@contextmanager
def _deployment(console: "Console", *, as_json: bool) -> Iterator["Client"]:
    """Everything a search needs, under a home of its own, for as long as the block runs."""
    from dartboard.client import Client
    from dartboard.local.parts import Plan
    from dartboard.local.signals import termination_raises, undisturbed
    from dartboard.local.stack import Stack

    # Short, since the path of a Unix socket is.
    home = Settings.read().home / "demo" / uuid4().hex[:6]
    report = reporter(as_json=as_json)
    stack = Stack(Plan.private(home), report)
    console.print(f"Starting a Dartboard of the demo's own in {home}", soft_wrap=True)
    succeeded = False
    with termination_raises():
        try:
            up = stack.up()
            with Client(up.url, key=up.key) as client:
                yield client
            succeeded = True
        finally:
            with undisturbed():
                stack.down()
                if succeeded:
                    shutil.rmtree(home, ignore_errors=True)
                else:
                    _keep(home)


def _search(client: "Client", body: dict[str, Any], console: "Console") -> "Search":
    from dartboard.cli.following import show_outcome, show_progress

    search = client.submit(body)
    console.print()
    console.print(f"Submitted {json.dumps(body)}", soft_wrap=True)
    show_progress(client, search, console)
    search = client.get(search)
    console.print()
    show_outcome(client, search, console)
    if search.status != "succeeded":
        raise DartboardError(f"the demo's search {search.status}")
    console.print()
    return search


def _draw(client: "Client", search: "Search") -> list[Path]:
    from dartboard.local.state import write_atomically

    assert search.recommended is not None
    pictures = []
    for cell in _CELLS:
        file = _FOLDER / f"{cell}.svg"
        write_atomically(file, client.picture(search.recommended.architecture, cell))
        pictures.append(file)
    return pictures


def _keep(home: Path) -> None:
    # The database and the checkpoints of a demo are of no use to anybody, PostgreSQL's log is.
    with suppress(OSError):
        (home / "postgres" / "log").rename(home / "logs" / "postgresql.log")
    for name in ("postgres", "checkpoints"):
        shutil.rmtree(home / name, ignore_errors=True)
    output.stderr().print(
        f"The demo did not finish. Its logs are in {home / 'logs'}", soft_wrap=True
    )
