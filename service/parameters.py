"""Parameters that more than one endpoint takes."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Path, Query, Request
from pydantic import AfterValidator

from service.problems import ProblemError

LARGEST_PAGE: Final = 200

HASH_PATTERN: Final = "^[0-9a-f]{64}$"

SearchId = Annotated[UUID, Path(description="The search's id.")]
TrainingId = Annotated[UUID, Path(description="The training's id.")]
TrialId = Annotated[UUID, Path(description="The trial's id.")]
ArchitectureHash = Annotated[
    str,
    Path(
        pattern=HASH_PATTERN,
        description="The architecture's hash: SHA-256 of its canonical JSON.",
    ),
]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Most items to return.")]


def _plain(value: str) -> str:
    # PostgreSQL stores no NUL, and UTF-8 has no lone surrogates: nothing stored can match them.
    if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("has a character that no stored text has")
    return value


PlainText = Annotated[str, AfterValidator(_plain)]
"""Text that PostgreSQL can compare with."""


async def refuse_unknown_query_parameters(request: Request) -> None:
    """A dependency: a misspelt filter is an error, and not silently no filter.

    Raises:
        ProblemError: The query has a parameter that the operation does not take.
    """
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        detail = f"{request.url.path} knows no query parameter {unknown[0][:100]!r}; {takes}."
        forms = request.scope["route"].responses.get(200, {}).get("content", {})
        others = [media_type for media_type in forms if media_type != "application/json"]
        if unknown[0] == "format" and others:
            detail += f" Other forms are asked for by a header: `Accept: {others[0]}`."
        raise ProblemError("invalid-parameter", detail)
