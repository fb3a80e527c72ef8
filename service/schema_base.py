"""What every answer has in common."""

from datetime import UTC, datetime
from typing import Annotated, Final

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

STANDS_FOR: Final = "x-stands-for"
"""Key in a field's JSON schema: the component that describes its object better than we do."""
