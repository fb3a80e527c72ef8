"""How the lists of searches and of trainings are filtered."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime

from service.parameters import PlainText
from store.states import SearchStatus


def _label(value: str) -> str:
    key, colon, text = value.partition(":")
    if not (key and colon and text):
        raise ValueError("write a label as key:value")
    return value


Statuses = Annotated[
    list[SearchStatus],
    Query(alias="status", description="Any of these statuses; repeat it for more than one."),
]
Name = Annotated[PlainText | None, Query(description="Exactly this name.")]
OwnerFilter = Annotated[
    PlainText | None, Query(alias="owner", description="Only this owner's, of those that you see.")
]
Labels = Annotated[
    list[Annotated[PlainText, AfterValidator(_label)]],
    Query(description="A label as `key:value`; repeated, all of them."),
]
CreatedAfter = Annotated[
    AwareDatetime | None,
    Query(description="Created then or later; a time with its zone, as 2026-01-31T12:00:00Z."),
]
CreatedBefore = Annotated[AwareDatetime | None, Query(description="Created before this time.")]
Sort = Annotated[
    Literal["created", "-created"], Query(description="Oldest first, or newest first.")
]
Cursor = Annotated[
    str | None, Query(description="`next_cursor` of the page before.", max_length=100)
]


def labels_of(labels: Sequence[str]) -> dict[str, str]:
    """The labels that a query names."""
    return dict(text.split(":", 1) for text in labels)
