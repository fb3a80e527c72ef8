"""What all answers have in common."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer


def rfc3339(moment: datetime) -> str:
    """A moment as the API writes it: in UTC, with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A moment, which is written as JSON just as the API wrote it."""


class Result(BaseModel):
    """Any answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)
