"""`retry`."""

from typing import Annotated

import typer

from dartboard.cli import output
from dartboard.cli.options import Json, Url, connect


def retry(
    trial: Annotated[
        str,
        typer.Argument(metavar="TRIAL_ID", help="A trial's id, as `dartboard show` lists them."),
    ],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Run a failed trial again, alone; its search goes back to the queue for it.

    With --json: the trial.
    """
    with connect(url) as client:
        found = client.retry_trial(trial.strip().lower())
    if as_json:
        output.print_json(found)
        return
    output.stdout().print(
        f"Trial {found.number} is {found.status}; `dartboard follow {found.search_id}` watches it.",
        soft_wrap=True,
    )
