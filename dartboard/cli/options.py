"""Arguments and options that several commands take."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dartboard.client import Client

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs; errors too, on stderr.")
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The server. Default: DARTBOARD_URL, else the one that `dartboard up` started.",
    ),
]
SearchRef = Annotated[
    str,
    typer.Argument(
        metavar="SEARCH", help="A search's id, the start of one, or `last` for the newest."
    ),
]
ArchitectureRef = Annotated[
    str,
    typer.Argument(
        metavar="ARCHITECTURE|SEARCH",
        help="An architecture's hash, or the start of one; or a search (as elsewhere), for the one "
        "that it recommends.",
    ),
]
TrialNumber = Annotated[
    int | None,
    typer.Option("--trial", min=0, help="That trial's architecture, not the recommended one."),
]


def connect(url: str | None) -> "Client":
    """A client of the server that the command line names."""
    from dartboard.client import Client
    from dartboard.errors import DartboardError

    try:
        return Client(url)
    except DartboardError as error:
        if url is None:
            raise
        raise typer.BadParameter(str(error), param_hint="--url") from None
