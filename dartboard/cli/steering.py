"""`cancel`, `pause`, `resume`, `retry`, `change` and `delete`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dartboard.cli import output
from dartboard.cli.options import JobRef, Json, Url, connect

if TYPE_CHECKING:
    from dartboard.models import Search, Training


def cancel(reference: JobRef, as_json: Json = False, url: Url = None) -> None:
    """End a search or a training: at once while it waits, within seconds otherwise.

    With --json: the search or training.
    """
    from dartboard.cli.references import job

    with connect(url) as client:
        found = client.cancel(job(client, reference))
    told = "is cancelled" if found.ended else "ends within seconds"
    _tell(found, told, is_settled=found.ended, as_json=as_json)


def pause(reference: JobRef, as_json: Json = False, url: Url = None) -> None:
    """Free what a search or a training holds, until it is resumed.

    At once while it waits; what runs completes its epochs first. With --json: the search or
    training.
    """
    from dartboard.cli.references import job

    with connect(url) as client:
        found = client.pause(job(client, reference))
    is_settled = found.status == "paused"
    told = "pauses after its epochs"
    if is_settled:
        told = "is paused; `dartboard resume` lets it go on"
    _tell(found, told, is_settled=is_settled, as_json=as_json)


def resume(reference: JobRef, as_json: Json = False, url: Url = None) -> None:
    """Let a paused search or training wait for its turn again.

    With --json: the search or training.
    """
    from dartboard.cli.references import job

    with connect(url) as client:
        found = client.resume(job(client, reference))
    _tell(found, f"is {found.status}", is_settled=False, as_json=as_json)


def retry(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="SEARCH|TRAINING",
            help="The id of a search or a training, the start of one, or `last`.",
            show_default=False,
        ),
    ] = "",
    trial: Annotated[
        str | None,
        typer.Option("--trial", metavar="TRIAL_ID", help="Only this failed trial."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Run what failed or was cancelled again, from its last checkpoints; nothing else.

    With --json: the search or training, or the trial.
    """
    from dartboard.cli.references import job

    if bool(reference) == (trial is not None):
        raise typer.BadParameter("name a search or training, or a trial with --trial")
    with connect(url) as client:
        if trial is None:
            found = client.retry(job(client, reference))
            _tell(found, f"is {found.status}", is_settled=False, as_json=as_json)
            return
        one = client.retry_trial(trial.strip().lower())
    if as_json:
        output.print_json(one)
        return
    output.stdout().print(
        f"Trial {one.number} is {one.status}; `dartboard follow {one.search_id}` watches it.",
        soft_wrap=True,
    )


def change(
    reference: JobRef,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=-100, max=100, help="Higher goes first in the queue.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A label. Repeatable; all of these take the place of those that it has.",
        ),
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Change the name, the labels or the priority of a search or a training.

    With --json: the search or training.
    """
    from dartboard.cli.references import job
    from dartboard.cli.specs import parse_labels

    changes: dict[str, Any] = {"name": name, "priority": priority}
    changes = {field: value for field, value in changes.items() if value is not None}
    if label:
        changes["labels"] = parse_labels(label)
    if not changes:
        raise typer.BadParameter("name what to change: --name, --priority or --label")
    with connect(url) as client:
        found = client.change(job(client, reference), **changes)
    _tell(found, f"has {', '.join(changes)} changed", is_settled=True, as_json=as_json)


def delete(reference: JobRef, as_json: Json = False, url: Url = None) -> None:
    """Remove a search or a training that has ended, with all that it measured.

    Architectures stay. Deleting again is no error. With --json: the search or training as it was;
    nothing of what was deleted before.
    """
    from dartboard.cli.references import is_full_id, job
    from dartboard.errors import NotFoundError

    with connect(url) as client:
        try:
            found = job(client, reference)
        except NotFoundError as error:
            # The server knows what was deleted lately: asking for that again is no error.
            if not is_full_id(reference):
                raise
            try:
                client.delete(reference)
            except NotFoundError:
                raise error from None
            if not as_json:
                output.stdout().print(f"{reference} was deleted before.", soft_wrap=True)
            return
        client.delete(found)
    _tell(found, "is deleted", is_settled=True, as_json=as_json)


def _tell(found: "Search | Training", told: str, *, is_settled: bool, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
        return
    more = "" if is_settled else f"; `dartboard follow {found.id}` watches it"
    output.stdout().print(f"{found.id} {told}{more}.", soft_wrap=True)
