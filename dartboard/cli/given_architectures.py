"""From what a user types to an architecture that can be trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dartboard.cli.references import architecture_hash, is_architecture_reference

if TYPE_CHECKING:
    from dartboard.client import Client

_BEGINNINGS = ("{", "Genotype(", "Path(")


def meant(client: "Client", given: str) -> str | dict[str, Any]:
    """An architecture as a training's spec says it.

    Args:
        client: Asked where it is a search, or the start of a hash.
        given: A published architecture's name, a genotype in JSON or in its text form, a file with
            one, a hash or the start of one, or a search.

    Raises:
        typer.BadParameter: It is none of these.
        DartboardError: The search, or what has the hash, is not there.
    """
    from search_core import published

    if given in published.names():
        return given
    if given.lstrip().startswith(_BEGINNINGS):
        return _parsed(given, "the genotype")
    file = Path(given)
    if file.is_file():
        try:
            return _parsed(file.read_text(encoding="utf-8"), given)
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{given} cannot be read: {error}") from None
    if is_architecture_reference(given):
        return architecture_hash(client, given, None)
    raise typer.BadParameter(
        f"{given!r} is no published architecture, no file with a genotype, no hash and no search; "
        f"published are: {', '.join(published.names())}",
        param_hint="--architecture",
    )


def _parsed(text: str, where: str) -> dict[str, Any]:
    from search_core.errors import InvalidGenotypeError
    from search_core.genotype import parse

    try:
        genotype: dict[str, Any] = parse(text).model_dump(mode="json")
    except InvalidGenotypeError as error:
        raise typer.BadParameter(f"{where}: {error}", param_hint="--architecture") from None
    return genotype
