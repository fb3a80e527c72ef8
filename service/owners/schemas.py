"""What the API takes and says about owners."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.schema_base import Answer, Time
from store.models import Owner

Team = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[\w.\-/]+$")]


class OwnerChanges(BaseModel):
    """What to change about an owner; what is absent stays."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Their part of the cluster, relative to the others' that wait."""
    max_running: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Most searches and trainings that run at once; null for no limit."""
    max_gpus: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    """Most GPUs that they hold at once; null for no limit."""
    teams: Annotated[list[Team], Field(max_length=32)] = []
    """Values of the label `team` whose searches they see and steer beside their own."""

    @property
    def given(self) -> dict[str, Any]:
        """Only what the request has."""
        return self.model_dump(exclude_unset=True)


class OwnerAnswer(Answer):
    """An owner."""

    name: str
    """Their name."""
    weight: float
    """Their part of the cluster, relative to the others' that wait."""
    max_running: int | None
    """Most searches and trainings that run at once; null without a limit."""
    max_gpus: float | None
    """Most GPUs that they hold at once; null without a limit."""
    teams: Sequence[str]
    """Values of the label `team` whose searches they see beside their own."""
    num_running: int
    """Searches and trainings that run now."""
    created_at: Time
    """When their first key was made."""

    @classmethod
    def of(cls, owner: Owner, num_running: int) -> Self:
        """The answer about a row."""
        return cls(
            name=owner.name,
            weight=owner.weight,
            max_running=owner.max_running,
            max_gpus=owner.max_gpus,
            teams=owner.teams,
            num_running=num_running,
            created_at=owner.created_at,
        )


class OwnerList(Answer):
    """Owners."""

    items: Sequence[OwnerAnswer]
    """By name."""
