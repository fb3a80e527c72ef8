"""`submit`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dartboard.cli import output
from dartboard.cli.options import IdempotencyKey, Json, Url, connect
from dartboard.cli.specs import SpecFiles, apply_settings, parse_labels, read_specs

if TYPE_CHECKING:
    from dartboard.errors import InvalidSpecError
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
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC.json|-...",
            help="Files with a spec, an array of specs, or a spec a line (JSONL); - for stdin.",
        ),
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
    idempotency_key: IdempotencyKey = None,
    as_json: Json = False,
    url: Url = None,
) -> int:
    """Submit a search, or up to 100 at once, all or none.

    The options win over the files, for every spec in them, and --set over all. With --json: the
    search; with --follow besides, one event a line after it. Of several files, and of a file with
    several specs: an array of searches.
    """
    given = read_specs(specs) if specs else SpecFiles([{}], [""], is_one=True)
    labels = parse_labels(label or ())
    for body in given.specs:
        _apply_options(body, {"preset": preset, "name": name, "priority": priority}, labels)
        apply_settings(body, settings or ())
    if given.is_one:
        (body,) = given.specs
        how = _How(idempotency_key, dry_run, follow, as_json)
        return _submit_one(body, url, how)
    if follow:
        raise typer.BadParameter(
            "--follow watches one search, and here are several specs: submit them without it, and "
            "follow each"
        )
    _submit_all(given, url, idempotency_key, dry_run=dry_run, as_json=as_json)
    return 0


@dataclass(frozen=True)
class _How:
    """The options that say nothing about the search itself."""

    idempotency_key: str | None
    dry_run: bool
    follow: bool
    as_json: bool


def _apply_options(body: dict[str, Any], fields: dict[str, Any], labels: dict[str, str]) -> None:
    body.update({field: value for field, value in fields.items() if value is not None})
    if labels:
        in_file = body.get("labels")
        body["labels"] = {**in_file, **labels} if isinstance(in_file, dict) else labels


def _submit_one(body: dict[str, Any], url: str | None, how: _How) -> int:
    from dartboard.cli.following import follow_job
    from dartboard.cli.rendering import waiting_sentence

    if not body:
        raise typer.BadParameter(
            "say what to search: a file, or --preset digits-quick, or --set space.kind=darts; "
            "`dartboard presets` lists the presets"
        )
    with connect(url) as client:
        if how.dry_run:
            tell_dry_run(client.dry_run(body), as_json=how.as_json)
            return 0
        search = client.submit(body, idempotency_key=how.idempotency_key)
        if how.as_json:
            output.print_json(search, indent=None if how.follow else 2)
        else:
            say = output.stdout()
            say.print(f"Submitted {search.id}", soft_wrap=True)
            if not how.follow:
                now = client.get(search)
                say.print(f"It is {waiting_sentence(now)}.", soft_wrap=True)
                say.print(f"Watch it: dartboard follow {search.id}", soft_wrap=True)
        if how.follow:
            return follow_job(client, search, after=0, as_json=how.as_json)
    return 0


def _submit_all(
    given: SpecFiles,
    url: str | None,
    idempotency_key: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from dartboard.errors import InvalidSpecError

    with connect(url) as client:
        try:
            if dry_run:
                results = client.dry_run_all(given.specs)
                if as_json:
                    output.print_json(results)
                    return
                for place, result in zip(given.places, results, strict=True):
                    output.stdout().print(f"{place}:", soft_wrap=True)
                    tell_dry_run(result, as_json=False)
                return
            searches = client.submit_all(given.specs, idempotency_key=idempotency_key)
        except InvalidSpecError as error:
            raise _with_places(error, given.places) from None
    if as_json:
        output.print_json(searches)
        return
    say = output.stdout()
    say.print(f"Submitted {len(searches)} searches:")
    for search in searches:
        say.print(f"{search.id}  {search.name}".rstrip(), soft_wrap=True)


def _with_places(error: "InvalidSpecError", places: list[str]) -> "InvalidSpecError":
    """The same error, whose fields say which file they are of."""
    from dartboard.errors import FieldError, InvalidSpecError

    def place(field: FieldError) -> FieldError:
        number = field.pointer.removeprefix("/searches/").partition("/")[0]
        if not number.isdecimal():
            return field
        return FieldError(field.pointer, f"{field.message} ({places[int(number)]})")

    return InvalidSpecError(
        status=error.status,
        type=error.type,
        title=error.title,
        detail=error.detail,
        errors=tuple(place(field) for field in error.errors),
    )


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
        return "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    return f"at most {result.epochs} epochs, {result.trial_epochs} in all,"
