"""How the command prints: tables for people, JSON for programs, errors on stderr."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dartboard.errors import DartboardError, ProblemError

_WIDTH_OF_PIPES = 160

STATUS_STYLES = {
    "queued": "yellow",
    "starting": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "paused": "blue",
    "crashed": "red",
    "stopped": "yellow",
    "external": "cyan",
}


def stdout() -> Console:
    """The console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console for progress and errors."""
    return _console(stderr=True)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Prints one JSON document; with `indent=None` on one line, and at once."""
    print(json.dumps(plain(value), indent=indent, ensure_ascii=False), flush=indent is None)


def plain(value: object) -> Any:
    """A value made of models, mappings and sequences as JSON values."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    return value


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An unboxed table with a bold head; the columns in `right` are flush right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=name == "id")
    return made


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def fraction(value: float | None) -> str:
    """An accuracy with four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def age(then: datetime | None, now: datetime | None = None) -> str:
    """How long ago something was, in one unit."""
    if then is None:
        return "-"
    return duration(((now or datetime.now(UTC)) - then).total_seconds())


def until(then: datetime | None, now: datetime | None = None) -> str:
    """How long it is until something, in one unit; a dash where nobody knows."""
    if then is None:
        return "-"
    return duration((then - (now or datetime.now(UTC))).total_seconds())


def duration(seconds: float) -> str:
    """A time span, in the largest unit of which there are two or more."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def tell_error(error: DartboardError, *, as_json: bool) -> None:
    """Prints an error on stderr: a line, and one for each offending field."""
    errors = error.errors if isinstance(error, ProblemError) else ()
    if as_json:
        document: dict[str, Any] = {"error": error.kind, "message": str(error)}
        if isinstance(error, ProblemError):
            document |= {"message": error.detail or error.title, "type": error.type}
            document["errors"] = [asdict(each) for each in errors]
        _print_json_error(document)
        return
    console = stderr()
    say = partial(console.print, soft_wrap=True)
    message = str(error)
    if isinstance(error, ProblemError):
        # The fields tell the details, each on a line of its own.
        message = error.title if errors else error.detail or error.title
    say(Text.assemble(("error: ", "bold red"), message))
    for each in errors:
        say(Text.assemble("  ", (each.pointer or "(the whole)", "bold"), f": {each.message}"))


def tell_usage_error(error: typer.TyperException, *, as_json: bool) -> None:
    """Prints what is wrong with the command line on stderr."""
    if as_json:
        _print_json_error({"error": "usage", "message": error.format_message()})
        return
    from typer.rich_utils import rich_format_error

    rich_format_error(error)  # type: ignore[arg-type]


def tell_interrupted(message: str, *, as_json: bool) -> None:
    """Says on stderr what a Ctrl-C did and did not do."""
    if as_json:
        _print_json_error({"error": "interrupted", "message": message})
    else:
        stderr().print(message, soft_wrap=True)


def silence_stdout() -> None:
    """Keeps Python from complaining at its exit that nobody reads its output any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_json_error(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False), file=sys.stderr)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # A pipe has no width; a table in it should not be squeezed into 80 columns.
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _WIDTH_OF_PIPES
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
