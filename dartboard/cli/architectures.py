"""`genotype` and `draw`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from dartboard.cli import output
from dartboard.cli.options import ArchitectureRef, Json, TrialNumber, Url, connect
from dartboard.errors import DartboardError

Format = Literal["svg", "dot"]

_FORMATS: Final[Mapping[str, Format]] = {".svg": "svg", ".dot": "dot", ".gv": "dot"}


def genotype(
    architecture: ArchitectureRef,
    trial: TrialNumber = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Print an architecture in its text form: of cells, that of the DARTS papers' code.

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
    cuboid: Annotated[
        bool,
        typer.Option(
            "--cuboid",
            help="Of a search: its trial's whole hypercuboid by the weights of the last epoch.",
        ),
    ] = False,
    picture_format: Annotated[
        Format | None,
        typer.Option("--format", help="Default: what the file's name says, else svg."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The .svg or .dot file to write; - for stdout. Default: here, by its hash.",
        ),
    ] = None,
    trial: TrialNumber = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Draw an architecture's cells or path into a file; or a whole hypercuboid.

    With --json: the hash, the cell, the format and the path; of a cuboid the trial's id.
    """
    from dartboard.cli.references import architecture_hash, trial_id
    from dartboard.local.state import write_atomically

    to_stdout = to is not None and str(to) == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("--json and --output - would both write to stdout")
    if cuboid and cell is not None:
        raise typer.BadParameter("--cuboid and --cell contradict each other")
    chosen = _format(picture_format, None if to_stdout else to)
    with connect(url) as client:
        if cuboid:
            identifier = trial_id(client, architecture, trial)
            picture = client.cuboid_picture(identifier, chosen)
            name = f"{identifier}-cuboid.{chosen}"
        else:
            identifier = architecture_hash(client, architecture, trial)
            picture = client.picture(identifier, cell, chosen)
            name = f"{identifier[:12]}{f'-{cell}' if cell else ''}.{chosen}"
    if to_stdout:
        sys.stdout.buffer.write(picture)
        return
    file = to if to is not None else Path(name)
    try:
        write_atomically(file, picture)
    except OSError as error:
        raise DartboardError(f"{file} cannot be written: {error.strerror}") from error
    if as_json:
        what = {"trial": identifier} if cuboid else {"architecture": identifier, "cell": cell}
        output.print_json({**what, "format": chosen, "path": str(file)})
    else:
        output.stdout().print(f"Wrote {file}", soft_wrap=True)


def _format(wanted: Format | None, file: Path | None) -> Format:
    """The picture's format, once it is clear that the file can hold it."""
    if file is None:
        return wanted or "svg"
    if file.suffix not in ("", *_FORMATS):
        raise typer.BadParameter(
            f"{file}: a picture is .svg or .dot; other formats are made from these, such as "
            "`dot -Tpng x.dot -o x.png` with Graphviz",
            param_hint="--output",
        )
    named = _FORMATS.get(file.suffix)
    if wanted is not None and named not in (None, wanted):
        raise typer.BadParameter(
            f"--format {wanted} and a file that ends in {file.suffix} contradict each other",
            param_hint="--output",
        )
    if file.is_dir():
        raise DartboardError(f"{file} cannot be written: it is a folder")
    if not file.parent.is_dir():
        raise DartboardError(f"{file} cannot be written: there is no folder {file.parent}")
    return wanted or named or "svg"
