"""`submit`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dartboard.cli import output
from dartboard.cli.options import Json, Url, connect
from dartboard.cli.specs import apply_settings, parse_labels, read_spec

if TYPE_CHECKING:
    from dartboard.models import DryRun, SpaceSize

_MOST_WRITTEN_OUT: Final = 10**12

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=JSON",
        help="Set a field, such as training.epochs=20 or trials.seeds=[0,1]. Repeatable.",
    ),
]


def submit(
    spec: Annotated[
        str | None,
        typer.Argument(metavar="SPEC.json|-", help="A file with a spec, or - for stdin."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Start from a preset; `dartboard presets` lists them.")
    ] = None,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="A name, for people.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label. Repeatable.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="Higher goes first, from -100 to 100.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the spec and say what it would run.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch it until it ends, as `follow` does.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
) -> int:
    """Submit a search.

    The options win over the file, and --set over all. With --json: the search; with --follow
    besides, one event a line after it.
    """
    from dartboard.cli.following import follow_job
    from dartboard.cli.rendering import waiting_sentence

    body = read_spec(spec) if spec is not None else {}
    for field, value in (("preset", preset), ("name", name), ("priority", priority)):
        if value is not None:
            body[field] = value
    labels = parse_labels(label or ())
    if labels:
        in_file = body.get("labels")
        body["labels"] = {**in_file, **labels} if isinstance(in_file, dict) else labels
    apply_settings(body, settings or ())
    if not body:
        raise typer.BadParameter(
            "say what to search: a file, or --preset digits-quick, or --set space.kind=darts; "
            "`dartboard presets` lists the presets"
        )
    with connect(url) as client:
        if dry_run:
            tell_dry_run(client.dry_run(body), as_json=as_json)
            return 0
        search = client.submit(body)
        if as_json:
            output.print_json(search, indent=None if follow else 2)
        else:
            say = output.stdout()
            say.print(f"Submitted {search.id}", soft_wrap=True)
            if not follow:
                say.print(f"It is {waiting_sentence(search)}.", soft_wrap=True)
                say.print(f"Watch it: dartboard follow {search.id}", soft_wrap=True)
        if follow:
            return follow_job(client, search, after=0, as_json=as_json)
    return 0


def tell_dry_run(result: "DryRun", *, as_json: bool) -> None:
    """Prints what a spec would run."""
    if as_json:
        output.print_json(result)
        return
    trials = "1 trial" if result.num_trials == 1 else f"{result.num_trials} trials"
    finalists = result.finalist_batches_per_epoch
    output.stdout().print(
        f"The spec is valid: {trials} of {_epochs(result)} with {result.batches_per_epoch} "
        f"steps each{'' if finalists is None else f', {finalists} in those of finalists'}; "
        f"{_resources(result)} run all trials at once. "
        "Nothing was submitted."
    )
    if result.size is not None:
        for line in _size_lines(result.size):
            output.stdout().print(line)


def _size_lines(size: "SpaceSize") -> Iterator[str]:
    yield f"The space: {_count(size.architectures)} architectures, {size.operations:,} alphas."
    if size.training_bytes is not None:
        yield (
            f"Its network: {size.parameters:,} weights, {size.multiply_adds:,} multiply-adds for "
            f"an image; training it takes up to about {size.training_bytes / 2**30:,.1f} GiB of "
            "memory."
        )


def _count(number: int) -> str:
    return f"{number:,}" if number < _MOST_WRITTEN_OUT else f"10^{len(str(number)) - 1}"


def _resources(result: "DryRun") -> str:
    custom = (f"{amount:g} {name}" for name, amount in result.custom.items())
    *first, last = f"{result.cpus} CPUs", f"{result.gpus:g} GPUs", *custom
    return f"{', '.join(first)} and {last}"


def _epochs(result: "DryRun") -> str:
    if result.trial_epochs == result.num_trials * result.epochs:
        return f"{result.epochs} epochs"
    return f"at most {result.epochs} epochs, {result.trial_epochs} in all,"
