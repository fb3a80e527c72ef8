"""`up`, `down` and `status`: everything on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from dartboard.cli import output
from dartboard.cli.options import Json
from dartboard.settings import Settings

if TYPE_CHECKING:
    from dartboard.local.stack import Report
    from dartboard.models import Queue

_ASK_TIMEOUT = 2.0


def up(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: DARTBOARD_PORT, else 8000, else a free one."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs that trials may use. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start everything on this machine, in the background: PostgreSQL, Ray, dispatcher, API.

    A second `up` starts only what is missing. The state is kept under DARTBOARD_HOME, by default
    .dartboard in this folder. DARTBOARD_DATABASE_URL and DARTBOARD_RAY_ADDRESS name a PostgreSQL
    and a Ray to use instead of local ones.
    """
    from dartboard.local.parts import Plan
    from dartboard.local.stack import Stack

    plan = Plan.of(Settings.read(), port=port, cpus=cpus)
    result = Stack(plan, reporter(as_json=as_json)).up()
    if as_json:
        output.print_json(
            {
                "url": result.url,
                "openapi": f"{result.url}/openapi.json",
                "logs": str(plan.layout.logs),
                "started": list(result.started),
                "seconds": round(result.seconds, 1),
            }
        )
        return
    console = output.stdout()
    head = (
        f"Dartboard runs ({result.seconds:.1f} s)." if result.started else "Dartboard runs already."
    )
    for line in (
        head,
        f"  API      {result.url}",
        f"  OpenAPI  {result.url}/openapi.json",
        f"  logs     {plan.layout.logs}",
        "",
        "Next:  dartboard submit --preset digits-quick --follow",
        "       dartboard status    dartboard queue    dartboard down",
    ):
        console.print(line, soft_wrap=True)


def down(as_json: Json = False) -> None:
    """Stop everything that `up` started here.

    Searches that have not ended are kept, and go on at the next `up`.
    """
    from dartboard.local.parts import Plan
    from dartboard.local.stack import Stack

    settings = Settings.read()
    queue = _queue(settings)
    stopped = Stack(Plan.of(settings), reporter(as_json=as_json)).down()
    open_searches = (
        None if queue is None else {name: queue.counts.get(name, 0) for name in _OPEN_STATUSES}
    )
    if as_json:
        output.print_json({"stopped": list(stopped), "open_searches": open_searches})
        return
    console = output.stdout()
    if not stopped:
        console.print("Nothing ran here.")
        return
    console.print("Everything is stopped.")
    if open_searches is None:
        console.print("Searches that have not ended go on at the next `dartboard up`.")
    elif any(open_searches.values()):
        counts = ", ".join(
            f"{number} {name}"
            for name, number in open_searches.items()
            if number or name != "paused"
        )
        paused = "; what is paused waits to be resumed" if open_searches["paused"] else ""
        console.print(
            f"Searches that have not ended ({counts}) go on at the next `dartboard up`, from their "
            f"last checkpoints{paused}.",
            soft_wrap=True,
        )


def status(as_json: Json = False) -> int:
    """Show how each part is, and the queue. The exit code is 0 only when all of it runs."""
    from dartboard.local.parts import Plan
    from dartboard.local.status import status as status_of_parts
    from dartboard.models import rfc3339

    settings = Settings.read()
    plan = Plan.of(settings)
    parts = status_of_parts(plan)
    queue = _queue(settings)
    problems = _problems(settings)
    fine = all(part.fine for part in parts) and not problems
    if as_json:
        output.print_json(
            {
                "fine": fine,
                "home": str(plan.layout.home),
                "parts": [
                    {
                        "name": part.name,
                        "state": part.state,
                        "pid": part.pid,
                        "since": rfc3339(part.since) if part.since else None,
                        "address": part.address,
                    }
                    for part in parts
                ],
                "problems": problems,
                "counts": None if queue is None else dict(queue.counts),
            }
        )
        return 0 if fine else 1
    made = output.table("part", "state", "pid", "for", "address", right=("pid",))
    for part in parts:
        made.add_row(
            part.name,
            output.status_text(part.state),
            str(part.pid or "-"),
            output.age(part.since) if part.state == "running" else "-",
            part.address or "-",
        )
    console = output.stdout()
    console.print(made)
    for problem in problems:
        console.print(f"not ready: {problem}", soft_wrap=True)
    if queue is not None:
        counts = ", ".join(f"{count} {name}" for name, count in queue.counts.items())
        console.print(f"searches: {counts}", soft_wrap=True)
    if not fine:
        output.stderr().print("`dartboard up` starts what is missing.")
    return 0 if fine else 1


_OPEN_STATUSES = ("queued", "running", "paused")


def reporter(*, as_json: bool) -> "Report":
    """Prints each step of starting and stopping; on stderr where stdout is for JSON."""
    console = output.stderr() if as_json else output.stdout()
    return lambda part, what: console.print(f"{part:<11} {what}", soft_wrap=True)


def _queue(settings: Settings) -> "Queue | None":
    from dartboard.client import Client
    from dartboard.errors import DartboardError

    if not settings.server_file.exists():
        return None
    try:
        with Client(_own_url(settings), timeout=_ASK_TIMEOUT) as client:
            return client.queue()
    except DartboardError:
        return None


def _problems(settings: Settings) -> list[str]:
    from dartboard.client import Client
    from dartboard.errors import DartboardError

    if not settings.server_file.exists():
        return []
    try:
        with Client(_own_url(settings), timeout=_ASK_TIMEOUT) as client:
            checks = client.ready().checks
    except DartboardError as error:
        return [str(error)]
    return [f"{name}: {check.detail}" for name, check in checks.items() if not check.ok]


def _own_url(settings: Settings) -> str:
    # DARTBOARD_URL may name another server; these commands are about this machine's.
    return Settings(home=settings.home).server_url()
