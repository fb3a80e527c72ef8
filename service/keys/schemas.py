"""What the API takes and says about keys."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from search_core.spec.names import Name
from service.schema_base import Answer, Time
from store.access import Principal
from store.keys import NewKey
from store.models import Key, Owner
from store.owners import NAME_PATTERN
from store.states import Role

OwnerName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class KeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    owner: OwnerName | None = None
    """Who it lets in; you if absent. Another than you, only admins may name."""
    role: Role = Role.MEMBER
    """What it lets them do; not more than your own."""
    name: Name = ""
    """For people: what it is used by."""
    days: float | None = Field(default=None, gt=0, le=3650)
    """How long it lets them in; until it is revoked if absent."""

    @property
    def lifetime(self) -> timedelta | None:
        """The same as a duration."""
        return None if self.days is None else timedelta(days=self.days)


class KeyAnswer(Answer):
    """A key, without its secret."""

    id: UUID
    """Its id."""
    owner: str
    """Who it lets in."""
    role: Role
    """What it lets them do."""
    name: str
    """What it is used by."""
    prefix: str
    """The first characters of its secret, to tell it from others."""
    created_at: Time
    """When it was made."""
    expires_at: Time | None
    """When it stops to let anybody in."""
    revoked_at: Time | None
    """When it was taken out of use."""
    last_used_at: Time | None
    """When it was last used, to the minute."""

    @classmethod
    def of(cls, key: Key) -> Self:
        """The answer about a row."""
        return cls.model_validate(key)


class NewKeyAnswer(KeyAnswer):
    """A key that was just made."""

    key: str
    """Its secret. Nobody can read it again: keep it now."""

    @classmethod
    def of_new(cls, made: NewKey) -> Self:
        """The answer about a new key."""
        return cls(**KeyAnswer.of(made.key).model_dump(), key=made.secret)


class KeyList(Answer):
    """Keys."""

    items: Sequence[KeyAnswer]
    """The newest first."""


class Me(Answer):
    """Who you are, by your key."""

    owner: str
    """Whom your key lets in: what you submit is theirs."""
    role: Role
    """What it lets you do."""
    teams: Sequence[str]
    """Values of the label `team` whose searches you see beside your own."""
    key_id: UUID
    """The key's id."""
    expires_at: Time | None
    """When it stops to let you in."""

    @classmethod
    def of(cls, who: Principal, key: Key, owner: Owner) -> Self:
        """The answer about who asks."""
        return cls(
            owner=who.owner,
            role=who.role,
            teams=sorted(owner.teams),
            key_id=who.key_id,
            expires_at=key.expires_at,
        )
