"""`genotype` and `draw`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dartboard.cli import output
from dartboard.cli.options import ArchitectureRef, Json, TrialNumber, Url, connect
from dartboard.errors import DartboardError


def genotype(
    architecture: ArchitectureRef,
    trial: TrialNumber = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Print an architecture in the text form of the DARTS papers' code.

    With --json: the genotype's JSON.
    """
    from dartboard.cli.references import architecture_hash

    with connect(url) as client:
        found = client.genotype(architecture_hash(client, architecture, trial))
    if as_json:
        output.print_json(found)
    else:
        print(found.to_text())


def draw(
    architecture: ArchitectureRef,
    cell: Annotated[
        Literal["normal", "reduce"] | None, typer.Option(help="One cell. Default: both.")
    ] = None,
    picture_format: Annotated[
        Literal["svg", "dot"] | None,
        typer.Option("--format", help="Default: what the file's name says, else svg."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; - for stdout."),
    ] = None,
    trial: TrialNumber = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Draw an architecture's cells into a file.

    With --json: the hash, the cell, the format and the path.
    """
    from dartboard.cli.references import architecture_hash
    from dartboard.local.state import write_atomically

    to_stdout = to is not None and str(to) == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("--json and --output - would both write to stdout")
    chosen = picture_format or _format_of(to)
    with connect(url) as client:
        identifier = architecture_hash(client, architecture, trial)
        picture = client.picture(identifier, cell, chosen)
    if to_stdout:
        sys.stdout.buffer.write(picture)
        return
    file = to or Path(f"{identifier[:12]}{f'-{cell}' if cell else ''}.{chosen}")
    try:
        write_atomically(file, picture)
    except OSError as error:
        raise DartboardError(f"{file} cannot be written: {error.strerror}") from error
    if as_json:
        output.print_json(
            {"architecture": identifier, "cell": cell, "format": chosen, "path": str(file)}
        )
    else:
        output.stdout().print(f"Wrote {file}", soft_wrap=True)


def _format_of(file: Path | None) -> Literal["svg", "dot"]:
    return "dot" if file is not None and file.suffix in (".dot", ".gv") else "svg"
