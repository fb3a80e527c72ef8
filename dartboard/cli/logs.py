"""`logs`: what the parts of this machine wrote, and the runners and trials of a job anywhere."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dartboard.cli import output
from dartboard.cli.options import Json, Url, connect
from dartboard.errors import DartboardError
from dartboard.settings import Settings

if TYPE_CHECKING:
    from dartboard.local.parts import Layout
    from dartboard.models import Log, Search, Training

_TERMINAL_CODE: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_KIBIBYTE: Final = 1024


def logs(
    whose: Annotated[
        str | None,
        typer.Argument(
            metavar="PART|SEARCH|TRAINING",
            help="postgres, migrations, cluster, dispatcher or api, on this machine; or a search "
            "or training (its id, the start of one, or `last`), wherever it ran. Default: the end "
            "of each part's.",
        ),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 20,
    trial: Annotated[
        int | None,
        typer.Option("--trial", min=0, help="Of a search or training: only this trial's."),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", min=1, help="Of a search or training: of this attempt."),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Of a search or training: only say which there are.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Print the end of logs.

    Of a search or training: what the runner of its newest attempt wrote, and what its failed trials
    did. With --json: an object from each part or log to its lines; with --list an array of logs.
    """
    from dartboard.local.parts import LOGS, Plan

    if whose is not None and whose not in LOGS:
        _job_logs(whose, lines, trial, attempt, list_only=list_only, as_json=as_json, url=url)
        return
    if trial is not None or attempt is not None or list_only:
        raise typer.BadParameter("--trial, --attempt and --list go with a search or training")
    _part_logs(whose, Plan.of(Settings.read()).layout, lines, as_json=as_json)


def _part_logs(part: str | None, layout: "Layout", lines: int, *, as_json: bool) -> None:
    from dartboard.local.steps import tail

    files = _files(part, layout)
    found = {name: _plain(tail(file, lines)) for name, file in files.items()}
    if as_json:
        output.print_json(
            {name: {"path": str(files[name]), "lines": found[name]} for name in files}
        )
        return
    for name, file in files.items():
        _print(f"{name}: {file}", found[name])


def _files(part: str | None, layout: "Layout") -> Mapping[str, Path]:
    from dartboard.local.parts import LOGS

    files = {name: layout.log(name) for name in (LOGS if part is None else (part,))}
    if part in (None, "postgres"):
        files["postgres itself"] = layout.home / "postgres" / "log"
    return files


def _job_logs(
    reference: str,
    lines: int,
    trial: int | None,
    attempt: int | None,
    *,
    list_only: bool,
    as_json: bool,
    url: str | None,
) -> None:
    from dartboard.cli.references import is_start_of_id, job
    from dartboard.local.parts import LOGS

    wanted = reference.strip().lower()
    if wanted != "last" and not is_start_of_id(wanted):
        raise typer.BadParameter(
            f"{wanted!r} is no part ({', '.join(LOGS)}) and no id of a search or training, nor "
            "the start of one (4 characters or more), nor `last`"
        )
    with connect(url) as client:
        found = job(client, wanted)
        kept = [log for log in client.logs(found) if attempt in (None, log.attempt)]
        if list_only:
            shown = [log for log in kept if trial in (None, log.trial)]
            _print_list(shown, as_json=as_json)
            return
        chosen = _choose(found, kept, trial)
        if not chosen:
            raise DartboardError(_none_kept(found, kept, trial, attempt))
        texts = {log.name: client.log(found, log.name, tail=lines) for log in chosen}
    ends = {name: _plain(text.splitlines()) for name, text in texts.items()}
    if as_json:
        output.print_json(
            {log.name: {**output.plain(log), "lines": ends[log.name]} for log in chosen}
        )
        return
    for log in chosen:
        _print(f"{log.name}, {_size(log.size)}, {output.age(log.modified_at)} ago", ends[log.name])


def _choose(job: "Search | Training", kept: "Sequence[Log]", trial: int | None) -> "list[Log]":
    """The newest log of a trial; or the newest of the runner's and of each trial that failed."""
    failed = [each.number for each in job.trials if each.status == "failed"]
    newest: dict[int | None, Log] = {}
    for log in kept:
        newest.setdefault(log.trial, log)  # the newest attempt comes first
    numbers = [None, *failed] if trial is None else [trial]
    return [newest[number] for number in numbers if number in newest]


def _none_kept(
    job: "Search | Training", kept: "Sequence[Log]", trial: int | None, attempt: int | None
) -> str:
    if trial is not None and kept:
        return (
            f"trial {trial} of {job.id} has no log of its own"
            f"{f' of attempt {attempt}' if attempt is not None else ''}: it has not started, or it "
            f"ran inside the runner, whose log `dartboard logs {job.id}` prints"
        )
    if attempt is not None:
        return f"no log of attempt {attempt} of {job.id} is kept; it is at attempt {job.attempt}"
    return (
        f"no log of {job.id} is kept: it is {job.status}, at attempt {job.attempt}; "
        f"`dartboard show {job.id}` says more"
    )


def _print_list(logs: "Sequence[Log]", *, as_json: bool) -> None:
    if as_json:
        output.print_json(logs)
        return
    if not logs:
        output.stderr().print("No log is kept.")
        return
    table = output.table("name", "trial", "attempt", "size", "age", right=("attempt", "size"))
    for log in logs:
        whose = "runner" if log.trial is None else str(log.trial)
        age = output.age(log.modified_at)
        table.add_row(log.name, whose, str(log.attempt), _size(log.size), age)
    output.stdout().print(table)


def _print(title: str, lines: Sequence[str]) -> None:
    output.stderr().print(f"== {title}", style="bold", soft_wrap=True)
    for line in lines:
        print(line)


def _plain(lines: Sequence[str]) -> list[str]:
    # Ray and others colour what they write, for a terminal that was never there.
    return [_TERMINAL_CODE.sub("", line) for line in lines]


def _size(num_bytes: int) -> str:
    return f"{num_bytes} B" if num_bytes < _KIBIBYTE else f"{num_bytes / _KIBIBYTE:.1f} KiB"
