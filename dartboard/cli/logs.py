"""`logs`: what the parts of this machine wrote, and the runner of a search or a training."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dartboard.cli import output
from dartboard.cli.options import Json, connect
from dartboard.errors import DartboardError
from dartboard.settings import Settings

if TYPE_CHECKING:
    from dartboard.local.parts import Layout

_SHOWN: Final = 5
_RUNNER_LOG: Final = re.compile(r"(?P<search>[0-9a-f-]{36})-(?P<attempt>[0-9]+)\.log")
_TERMINAL_CODE: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def logs(
    whose: Annotated[
        str | None,
        typer.Argument(
            metavar="PART|SEARCH|TRAINING",
            help="postgres, migrations, cluster, dispatcher or api; or a search or training (its "
            "id, the start of one, or `last`), for its newest runner. Default: each part's end.",
        ),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Print the end of the logs on this machine.

    With --json: an object from each part, or `runner`, to the path and the lines of its log.
    """
    from dartboard.local.parts import Plan
    from dartboard.local.steps import tail

    files = _files(whose, Plan.of(Settings.read()).layout)
    found = {
        # Ray and others colour what they write, for a terminal that was never there.
        name: [_TERMINAL_CODE.sub("", line) for line in tail(file, lines)]
        for name, file in files.items()
    }
    if as_json:
        output.print_json(
            {name: {"path": str(files[name]), "lines": found[name]} for name in files}
        )
        return
    for name, file in files.items():
        output.stderr().print(f"== {name}: {file}", style="bold", soft_wrap=True)
        for line in found[name]:
            print(line)


def _files(whose: str | None, layout: "Layout") -> Mapping[str, Path]:
    from dartboard.local.parts import LOGS

    if whose is not None and whose not in LOGS:
        return {"runner": _runner_log(whose.strip().lower(), layout)}
    files = {name: layout.log(name) for name in (LOGS if whose is None else (whose,))}
    if whose in (None, "postgres"):
        files["postgres itself"] = layout.home / "postgres" / "log"
    return files


def _runner_log(reference: str, layout: "Layout") -> Path:
    """The log of a job's newest attempt. Only `last` needs a server to find it."""
    from dartboard.cli.references import is_start_of_id, job
    from dartboard.local.parts import LOGS

    if reference == "last":
        with connect(None) as client:
            reference = str(job(client, reference).id)
    elif not is_start_of_id(reference):
        raise typer.BadParameter(
            f"{reference!r} is no part ({', '.join(LOGS)}) and no id of a search or training, nor "
            "the start of one (4 characters or more), nor `last`"
        )
    newest: dict[str, tuple[int, Path]] = {}
    for file in layout.runner_logs.glob(f"{reference}*.log"):
        match = _RUNNER_LOG.fullmatch(file.name)
        if match is not None:
            this = (int(match["attempt"]), file)
            newest[match["search"]] = max(this, newest.get(match["search"], this))
    if not newest:
        raise DartboardError(
            f"no search or training {reference} has run on this machine with DARTBOARD_HOME at "
            f"{layout.home}; "
            f"`dartboard show {reference}` says how it is"
        )
    if len(newest) > 1:
        raise typer.BadParameter(
            f"several ids start with {reference!r}, among them "
            f"{', '.join(sorted(newest)[:_SHOWN])}: give more of it"
        )
    ((_, file),) = newest.values()
    return file
