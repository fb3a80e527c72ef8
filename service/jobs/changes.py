"""What a user may change about a job after it was submitted."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from search_core.spec.names import Name
from search_core.spec.search import LabelText


class JobChanges(BaseModel):
    """What to change about a search or training; what is absent stays."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name = ""
    """For people; need not be unique."""
    labels: Annotated[dict[LabelText, LabelText], Field(max_length=32)] = {}
    """All of its labels, in place of those that it has."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Higher goes first in the queue."""

    @property
    def given(self) -> dict[str, Any]:
        """Only what the request has."""
        return self.model_dump(exclude_unset=True)
