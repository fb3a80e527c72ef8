"""`train` and `trainings`."""

from typing import Annotated

import typer

from dartboard.cli import output
from dartboard.cli.options import IdempotencyKey, Json, Url, connect
from dartboard.cli.specs import apply_settings, read_spec
from dartboard.cli.submitting import Settings, tell_dry_run


def train(
    spec: Annotated[
        str | None,
        typer.Argument(metavar="SPEC.json|-", help="A file with a spec, or - for stdin."),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            "-a",
            help="A published architecture's name; a genotype, or a file with one; the hash of one "
            "that was found, or a search, for the one it recommends.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Start from a preset; `dartboard presets` lists them.")
    ] = None,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="A name, for people.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the spec and say what it would run.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch it until it ends, as `follow` does.")
    ] = False,
    idempotency_key: IdempotencyKey = None,
    as_json: Json = False,
    url: Url = None,
) -> int:
    """Train an architecture from scratch: what it is worth.

    The options win over the file, and --set over all. With --json: the training; with --follow
    besides, one event a line after it.
    """
    from dartboard.cli.following import follow_job
    from dartboard.cli.given_architectures import meant
    from dartboard.cli.rendering import waiting_sentence

    body = read_spec(spec) if spec is not None else {}
    for field, value in (("architecture", architecture), ("preset", preset), ("name", name)):
        if value is not None:
            body[field] = value
    apply_settings(body, settings or (), "training")
    if not body:
        raise typer.BadParameter(
            "say what to train: a file, or --architecture DARTS_V2 --preset retrain-digits; "
            "`dartboard presets` lists the presets"
        )
    with connect(url) as client:
        if architecture is not None and body["architecture"] == architecture:
            body["architecture"] = meant(client, architecture)
        if dry_run:
            tell_dry_run(client.dry_run_training(body), as_json=as_json)
            return 0
        training = client.train(body, idempotency_key=idempotency_key)
        if as_json:
            output.print_json(training, indent=None if follow else 2)
        else:
            say = output.stdout()
            say.print(f"Submitted {training.id}", soft_wrap=True)
            if not follow:
                now = client.get(training)
                say.print(f"It is {waiting_sentence(now)}.", soft_wrap=True)
                say.print(f"Watch it: dartboard follow {training.id}", soft_wrap=True)
        if follow:
            return follow_job(client, training, after=0, as_json=as_json)
    return 0


def list_trainings(
    status: Annotated[
        list[str] | None, typer.Option(help="Only with this status. Repeatable: any of them.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most trainings.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List trainings, the newest first.

    With --json: an array of trainings.
    """
    from itertools import islice

    from dartboard.cli.rendering import search_table

    with connect(url) as client:
        matching = client.trainings(status=status or (), page_size=min(limit, 200))
        shown = list(islice(matching, limit))
    if as_json:
        output.print_json(shown)
    elif shown:
        output.stdout().print(search_table(shown))
    else:
        output.stderr().print("No training matches. `dartboard train` makes one.")
