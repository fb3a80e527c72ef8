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
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="NAME",
        help="A name for this request: sent again under it within a day, it makes nothing new. "
        "Default: a new one, for tries of this command alone.",
    ),
]
JobRef = Annotated[
    str,
    typer.Argument(
        metavar="SEARCH|TRAINING",
        help="The id of a search or a training, the start of one, or `last` for the newest of both "
        "kinds.",
    ),
]
ArchitectureRef = Annotated[
    str,
    typer.Argument(
        metavar="ARCHITECTURE|SEARCH",
        help="An architecture's hash, or the start of one; or a search's id, the start of one, or "
        "`last` for the newest search, for the architecture that it recommends.",
    ),
]
TrialNumber = Annotated[
    int | None,
    typer.Option("--trial", min=0, help="That trial's, not the recommended one's."),
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
