"""`paths`."""

from typing import TYPE_CHECKING, Annotated

import typer

from dartboard.cli import output
from dartboard.cli.options import Json, Url, connect

if TYPE_CHECKING:
    from rich.console import Console

    from dartboard.models import Path, Paths


def paths(
    search: Annotated[
        str,
        typer.Argument(
            metavar="SEARCH|TRIAL",
            help="A search's id, the start of one, or `last` for the newest; or a trial's id.",
        ),
    ],
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=100, help="How many.")] = 10,
    within_parameters: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="And the best one with at most so many weights."),
    ] = None,
    within_multiply_adds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Or with at most so many multiply-adds."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, help="That trial's, not the recommended one's.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List the best paths of a hypercuboid and what it derives, with their costs.

    They are those of the last completed epoch, also while the search runs. With --json: the paths,
    each with its genotype.
    """
    from dartboard.cli.references import trial_id

    if within_parameters is not None and within_multiply_adds is not None:
        raise typer.BadParameter("give one of --within-parameters and --within-multiply-adds")
    with connect(url) as client:
        found = client.paths(
            trial_id(client, search, trial),
            k,
            within_parameters=within_parameters,
            within_multiply_adds=within_multiply_adds,
        )
    if as_json:
        output.print_json(found)
    else:
        _print_paths(found, output.stdout())


def _print_paths(found: "Paths", console: "Console") -> None:
    console.print(
        f"Trial {found.trial_id}, after epoch {found.step} of {found.epochs}", soft_wrap=True
    )
    numbers = ("score", "parameters", "multiply-adds")
    made = output.table("", *numbers, "path", right=("", *numbers))
    for number, path in enumerate(found.items, start=1):
        made.add_row(str(number), *_row(path))
    if found.derived.architecture != found.items[0].architecture:
        made.add_row("derived", *_row(found.derived))
    if found.within is not None:
        made.add_row("within", *_row(found.within.path))
    console.print(made)
    if found.derived.architecture != found.items[0].architecture:
        so_far = "" if found.step == found.epochs else " so far"
        console.print(f"derived: the best finalist{so_far}", soft_wrap=True)
    if found.within is not None:
        measure = found.within.measure.replace("_", "-")
        console.print(
            f"within: the best path with at most {found.within.budget:,} {measure}", soft_wrap=True
        )


def _row(path: "Path") -> tuple[str, ...]:
    from dartboard.cli.rendering import path_line

    return (
        f"{path.score:.4f}",
        f"{path.parameters:,}",
        f"{path.multiply_adds:,}",
        path_line(path.genotype),
    )
