"""What every answer has in common."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer


class Answer(BaseModel):
    """A frozen answer; a number that is not finite becomes null, which is what JSON can say."""

    model_config = ConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="null",
        from_attributes=True,
    )


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str)]
"""A moment, in RFC 3339 with the time zone UTC, whatever the database session's is."""


def example(value: Mapping[str, Any]) -> dict[str, Any]:
    """The `content` of an OpenAPI response with one example."""
    return {"content": {"application/json": {"example": dict(value)}}}
