"""Keys, owners and who one is, for programs: `client.keys`, `client.owners`, `client.me()`."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from dartboard.lists import Page
from dartboard.models import Result, Time
from dartboard.transport import Transport, parse_answer, segment


class Key(Result):
    """What lets a program in. Its secret is not in it."""

    id: UUID
    owner: str
    """Who it lets in."""
    role: str
    """viewer, member or admin."""
    name: str = ""
    """What it is used by."""
    prefix: str
    """The first characters of its secret."""
    created_at: Time
    expires_at: Time | None = None
    revoked_at: Time | None = None
    last_used_at: Time | None = None


class NewKey(Key):
    """A key that was just made."""

    key: str
    """Its secret, which nobody can read again."""


class Owner(Result):
    """Whose searches there are, and how much of the cluster they may hold."""

    name: str
    weight: float = 1.0
    """Their part of the cluster, relative to the others' that wait."""
    max_running: int | None = None
    """Most searches and trainings at once; None without a limit."""
    max_gpus: float | None = None
    """Most GPUs at once; None without a limit."""
    teams: tuple[str, ...] = ()
    """Values of the label `team` whose searches they see beside their own."""
    num_running: int = 0
    created_at: Time


class Me(Result):
    """Who the client's key lets in."""

    owner: str
    role: str
    teams: tuple[str, ...] = ()
    key_id: UUID
    expires_at: Time | None = None


class KeyCalls:
    """The calls about keys."""

    def __init__(self, transport: Transport) -> None:
        """Asks over a client's connections."""
        self._transport = transport

    def create(
        self,
        owner: str | None = None,
        role: str = "member",
        *,
        name: str = "",
        days: float | None = None,
        idempotency_key: str | None = None,
    ) -> NewKey:
        """Makes a key, and its owner with the first one.

        Args:
            owner: Who it lets in; yourself when None. Another than you takes an admin's key.
            role: viewer, member or admin, but not more than your own.
            name: What it is used by.
            days: How long it lets them in; None until it is revoked.
            idempotency_key: A name for this request, under which it may be sent again; a new one
                when None.

        Returns:
            The key with its secret.

        Raises:
            KeyRefusedError: Your own key is too weak for that.
            InvalidRequestError: Something in it is wrong.
        """
        wanted = {"owner": owner, "role": role, "name": name, "days": days}
        body = {field: value for field, value in wanted.items() if value is not None}
        response = self._transport.create("/v1/keys", json=body, idempotency_key=idempotency_key)
        return parse_answer(response, NewKey)

    def list(self, owner: str | None = None) -> tuple[Key, ...]:
        """Your own keys, or as an admin everybody's; the newest first."""
        response = self._transport.get("/v1/keys", params={"owner": owner})
        return parse_answer(response, Page[Key]).items

    def revoke(self, key_id: UUID | str) -> Key:
        """Takes a key out of use, at once and for good. Revoking twice is no error.

        Raises:
            NotFoundError: There is no such key, or it is none of yours.
        """
        path = f"/v1/keys/{segment(key_id)}/revoke"
        return parse_answer(self._transport.post(path), Key)


class OwnerCalls:
    """The calls about owners."""

    def __init__(self, transport: Transport) -> None:
        """Asks over a client's connections."""
        self._transport = transport

    def list(self) -> tuple[Owner, ...]:
        """All owners for an admin, yourself otherwise; by name."""
        return parse_answer(self._transport.get("/v1/owners"), Page[Owner]).items

    def get(self, name: str) -> Owner:
        """An owner.

        Raises:
            NotFoundError: There is none, or it is not you and you are no admin.
        """
        return parse_answer(self._transport.get(_path(name)), Owner)

    def change(self, name: str, **changes: float | Sequence[str] | None) -> Owner:
        """Sets what is given; takes an admin's key.

        Args:
            name: The owner.
            **changes: `weight`, `max_running`, `max_gpus` (None: no limit) or `teams`.

        Raises:
            NotFoundError: There is no such owner.
            KeyRefusedError: Your key is no admin's.
            InvalidRequestError: A value is wrong.
        """
        body: dict[str, Any] = dict(changes)
        return parse_answer(self._transport.patch(_path(name), json=body), Owner)


def _path(owner: str) -> str:
    return f"/v1/owners/{segment(owner)}"
