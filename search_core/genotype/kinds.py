"""The kinds of genotype, told apart by `kind`, and the JSON schema of all."""

from typing import Annotated, Any, Final

from pydantic import Discriminator, Tag, TypeAdapter

from search_core.genotype.cell import CellGenotype
from search_core.genotype.path import PathGenotype

_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def kind_of(value: Any) -> str | None:
    """The kind of a genotype, as a value or as JSON, which may leave it out: only a path has steps.

    Args:
        value: Anything.

    Returns:
        What it says of itself, which need not be a kind that there is; None if it is no object, or
        its kind no text.
    """
    if isinstance(value, CellGenotype | PathGenotype):
        return value.kind
    if not isinstance(value, dict):
        return None
    kind = value.get("kind", "path" if "steps" in value else "cell")
    return kind if isinstance(kind, str) else None


Genotype = Annotated[
    Annotated[CellGenotype, Tag("cell")] | Annotated[PathGenotype, Tag("path")],
    Discriminator(
        kind_of,
        custom_error_type="genotype_kind",
        custom_error_message="a genotype is an object whose kind is 'cell' or 'path'",
    ),
]
"""Any architecture, told apart by `kind`."""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a genotype's JSON form.

    What a schema cannot say, `parse` checks besides: that every node of a cell has two edges and
    reads earlier states only, that a concatenation repeats none, and that the steps of a path fit
    each other.

    Returns:
        A JSON schema, draft 2020-12.
    """
    adapter: TypeAdapter[Genotype] = TypeAdapter(Genotype)
    return {"$schema": _SCHEMA_DIALECT, **adapter.json_schema()}
